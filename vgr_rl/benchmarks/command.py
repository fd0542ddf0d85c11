"""`python -m vgr_rl.evaluate score`, `table`, `figure` and `export`: from predictions to figures and tables."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vgr_rl.benchmarks import general
from vgr_rl.benchmarks.answers import CONVENTIONS
from vgr_rl.benchmarks.scatter import CORRELATION
from vgr_rl.benchmarks.suite import CHOICE, NAMES, RUNNABLE, Scored, benchmark_name, find_data, score, title

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

COMMANDS = ("score", "table", "figure", "export")
_SHOWN = 10  # rows that are named; the rest is counted


def main(arguments: Sequence[str]) -> int:
    """Run a command and return its exit status.

    0: done; 1: done, but predictions are missing, double, unknown or bad, or the data are not the published benchmark
    and `--partial` does not say so; 2: nothing was done.
    """
    from rich.console import Console

    options = _parser().parse_args(arguments)
    messages = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    try:
        if (options.command, options.benchmark) not in (("table", general.NAME), ("figure", CORRELATION)):
            options.benchmark = benchmark_name(options.benchmark)
        if options.command == "score":
            return _score(options, messages)
        return {"table": _table, "figure": _figure, "export": _export}[options.command](options)
    except OSError as error:
        messages.print(f"error: {error.filename}: {error.strerror}")
        return 2
    except ValueError as error:
        messages.print(f"error: {error}")
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m vgr_rl.evaluate", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    scoring = commands.add_parser(
        "score", help="score a dump of predictions", description="docs/benchmarks.md has the formats and conventions."
    )
    scoring.add_argument("benchmark", metavar="BENCH", help=", ".join(NAMES))
    scoring.add_argument("--data", required=True, help="the published file, its folder, or OWNER/NAME on the hub")
    scoring.add_argument(
        "--predictions", required=True, type=Path, metavar="FILE", help=".jsonl, or VLMEvalKit's .xlsx, .tsv or .json"
    )
    scoring.add_argument("--convention", choices=CONVENTIONS, default="authors", help="whose scoring (authors)")
    scoring.add_argument("--partial", action="store_true", help="--data is meant to be a part of the benchmark")
    scoring.add_argument("--seed", type=int, default=0, help="of the bootstrap intervals (0)")
    scoring.add_argument("--json", type=Path, metavar="OUT", help="where to write the scores")
    scoring.add_argument(
        "--figure", type=Path, action="append", default=[], metavar="OUT.png", help="IoU histogram; .png, .svg or .pdf"
    )
    table = commands.add_parser("table", help="show results under the published ones")
    table.add_argument("benchmark", metavar="BENCH", help=", ".join((*NAMES, general.NAME)))
    table.add_argument(
        "results", type=Path, nargs="+", metavar="RESULT", help="what score --json wrote; general: VLMEvalKit's folders"
    )
    table.add_argument("--format", choices=("md", "tex", "json"), default="md", help="markdown, LaTeX or JSON (md)")
    figure = commands.add_parser("figure", help="draw accuracy against mIoU, or benchmarks against each other")
    figure.add_argument("benchmark", metavar="BENCH", help=f"{', '.join(RUNNABLE)}; {CORRELATION}: all of them")
    figure.add_argument(
        "results", type=Path, nargs="*", metavar="RESULT", help="what score --json wrote, beside the published rows"
    )
    figure.add_argument(
        "--out",
        type=Path,
        action="append",
        required=True,
        metavar="OUT.png",
        help=".png, .svg or .pdf; may be repeated",
    )
    exporting = commands.add_parser("export", help="write predictions as VLMEvalKit does, for its scorers")
    exporting.add_argument("benchmark", metavar="BENCH", help=", ".join(CHOICE))
    exporting.add_argument("--data", required=True, help="VLMEvalKit's file, its folder, or OWNER/NAME on the hub")
    exporting.add_argument("--predictions", required=True, type=Path, metavar="FILE", help="one row a question")
    exporting.add_argument("--out", required=True, type=Path, metavar="MODEL_DATASET.xlsx", help=".xlsx, .tsv or .json")
    return parser


def _score(options: argparse.Namespace, messages: "Console") -> int:
    from rich.console import Console

    from vgr_rl.benchmarks.store import write_json

    data = find_data(options.benchmark, options.data)
    scored = score(options.benchmark, data, options.predictions, options.convention, options.seed)
    if options.figure:
        from vgr_rl.benchmarks.histogram import draw_histogram

        draw_histogram(scored.graded, f"{title(options.benchmark)}, {options.predictions.stem}", options.figure)
    if options.json is not None:
        write_json(options.json, scored.result)
    complain(scored, str(data), options, messages)
    Console(highlight=False, markup=False).print(score_table(scored.result))
    return 0 if scored.predictions.complete and (options.partial or not scored.differences) else 1


def complain(scored: Scored, data: str, options: argparse.Namespace, messages: "Console") -> None:
    """Say what is wrong with the predictions and the data, so that nobody overlooks it."""
    read, file = scored.predictions, options.predictions
    for what, rows in (
        ("bad rows, which do not count", read.bad),
        ("rows of questions that --data does not have", read.unknown),
        ("rows whose question an earlier row answers, which do not count", read.duplicate),
        ("questions without a prediction, which count as wrong", read.missing),
    ):
        if rows:
            more = f"\n  … and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
            messages.print(f"warning: {file} has {len(rows)} {what}:\n  " + "\n  ".join(rows[:_SHOWN]) + more)
    if scored.differences and not options.partial:
        listed = "\n  ".join(scored.differences[:_SHOWN])
        messages.print(
            f"warning: {data} is not the published benchmark (--partial: it is meant to be a part):\n  {listed}"
        )


def score_table(result: dict[str, Any]) -> "Table":
    """Return the scores as a table, in percent."""
    from rich.table import Table

    extra = result["extra"]
    table = Table(title=f"{title(extra['benchmark'])}, {extra['name']}, convention {extra['convention']}")
    if "per_class" in result:
        for heading in (
            "",
            "n",
            *(f"{part} {name}" for part in ("reasoning", "answer") for name in ("mIoU", "LQ", "SQ")),
        ):
            table.add_column(heading, justify="right" if heading else "left")
        rows = {"overall": {"n": extra["n"], **result}, **result["per_class"]}
        for name, row in rows.items():
            parts = [row[part][metric] for part in ("reasoning", "answer") for metric in ("miou", "lq", "sq")]
            table.add_row(name, str(row["n"]), *map(_percent, parts))
        return table
    for heading in ("", "n", "right", "accuracy", "95 %", "mIoU"):
        table.add_column(heading, justify="right" if heading else "left")
    right = sum(row["correct"] for row in result["per_category"].values())
    whole = {"n": extra["n"], "correct": right, "accuracy": result["overall"], "miou": result["miou"]}
    rows = {**result["per_category"], **extra.get("groups", {}), "overall": whole}
    intervals = {**extra["intervals"]["per_category"], "overall": extra["intervals"]}
    for name, row in rows.items():
        bounds = intervals.get(name, {}).get("accuracy")
        interval = "–".join(map(_percent, bounds)) if bounds else ""
        shares = (_percent(row["accuracy"]), interval, _percent(row["miou"]))
        table.add_row(name, str(row["n"]), str(row["correct"]), *shares, style="bold" if name == "overall" else None)
    names = ("precision_iou", "dual_iou", "boxes_per_answer", "malformed_share", "truncated_share")
    table.caption = ", ".join(f"{name} {extra[name]:.3f}" for name in names if extra[name] is not None)
    return table


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"


def _table(options: argparse.Namespace) -> int:
    from vgr_rl.benchmarks.tables import build, read_result, render

    read = general.read_scores if options.benchmark == general.NAME else read_result
    sys.stdout.write(render(build(options.benchmark, list(map(read, options.results))), options.format))
    return 0


def _figure(options: argparse.Namespace) -> int:
    from vgr_rl.benchmarks.scatter import correlation_panels, draw, miou_panel
    from vgr_rl.benchmarks.tables import read_result

    results = list(map(read_result, options.results))
    if options.benchmark == CORRELATION:
        panels = correlation_panels(results)
    else:
        panels = [miou_panel(options.benchmark, results)]
    draw(panels, options.out)
    return 0


def _export(options: argparse.Namespace) -> int:
    from vgr_rl.benchmarks.predictions import read_predictions
    from vgr_rl.benchmarks.vlmevalkit import export

    if options.benchmark not in CHOICE:
        raise ValueError(f"VLMEvalKit has no {title(options.benchmark)}; give one of {', '.join(CHOICE)}")
    if options.out.suffix not in (".xlsx", ".tsv", ".json"):
        raise ValueError(f"--out={options.out}: the name must end in .xlsx, .tsv or .json")
    benchmark, data = CHOICE[options.benchmark], find_data(options.benchmark, options.data)
    items = benchmark.load(data)
    read = read_predictions(options.predictions, [item.key for item in items])
    export(benchmark, data, items, read.by_key, options.out)
    return 0
