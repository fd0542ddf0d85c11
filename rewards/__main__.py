"""Score dumps of any trainer, and list the rewards: `python -m rewards score FILE.jsonl`, `python -m rewards list`."""

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TextIO

from rewards.describe import describe
from rewards.diagnostics import MIN_RESPONSES, correlations, warnings
from rewards.load import BUILT_IN
from rewards.presets import PRESETS, load_rewards
from rewards.scoring import Scored, Spread, Summary, score_lines

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_SHOWN = 20  # bad rows and reasons of failures; the rest is counted


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    0: every row was scored; 1: some rows were bad or some scores failed, the rest is done; 2: nothing was done,
    because of the command, the rewards or the file.
    """
    from rich.console import Console

    options = _parser().parse_args(arguments)
    messages = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    try:
        if options.command == "list":
            _list(Console(highlight=False, markup=False))
            return 0
        return _score(options.file, options.rewards, options.out, messages)
    except BrokenPipeError:  # somebody read enough of our output, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        messages.print(f"error: {error.filename}: {error.strerror}")
        return 2
    except ValueError as error:
        messages.print(f"error: {error}")
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m rewards", description="Rewards for evidence that can be checked.")
    commands = parser.add_subparsers(dest="command", required=True)
    score = commands.add_parser(
        "score",
        help="score a dump of responses",
        description="Score a dump of responses; docs/rewards.md has the format of its rows.",
    )
    score.add_argument("file", metavar="FILE.jsonl", help="one JSON object a line; - reads standard input")
    score.add_argument("--rewards", required=True, metavar="NAME", help=f"{' or '.join(PRESETS)}, or a file FILE.yaml")
    score.add_argument("--out", metavar="OUT.jsonl", help="where to write one row a response; - is standard output")
    commands.add_parser("list", help="show every reward with its parameters")
    return parser


def _score(file: str, rewards_name: str, out: str | None, messages: "Console") -> int:
    from rich.console import Console

    rewards = load_rewards(rewards_name)
    if out not in (None, "-") and Path(str(out)).resolve() == Path(file).resolve():
        raise ValueError(f"--out {out} is the file that is read; give another")
    summary, bad = Summary(), 0
    with _lines(file, messages) as lines, _output(out) as output, _failures_unlogged():
        for result in score_lines(lines, rewards):
            if isinstance(result, Scored):
                summary.add(result)
                if output is not None:
                    output.write(result.to_json() + "\n")
                continue
            bad += 1
            if bad <= _SHOWN:
                messages.print(f"{file}: line {result.line}: {result.reason}")
        if not summary.rows and not bad:
            raise ValueError(f"{file} has no rows")
    if bad > _SHOWN:
        messages.print(f"{file}: … and {bad - _SHOWN} more bad rows")
    if not summary.rows:
        known = "samples.jsonl of a run and the rows of `python -m vgr_rl.evaluate model=… data=…` have it"
        messages.print(f"no row could be scored; docs/rewards.md has their format; {known}")
    _show(summary, bad, messages if out == "-" else Console(highlight=False, markup=False))
    return 1 if bad or summary.failed else 0


@contextlib.contextmanager
def _failures_unlogged() -> Iterator[None]:
    """Keep failed terms out of the log: they are counted, and shown at the end."""
    logger = logging.getLogger("rewards")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _lines(file: str, messages: "Console") -> Iterator[BinaryIO]:
    """Open the rows; a progress bar shows how much of a file has been read."""
    from rich.progress import Progress

    if file == "-":
        yield sys.stdin.buffer
        return
    with (
        open(file, "rb") as opened,
        Progress(console=messages, transient=True, disable=not messages.is_terminal) as progress,
    ):
        yield progress.wrap_file(opened, total=os.fstat(opened.fileno()).st_size, description=file)


@contextlib.contextmanager
def _output(out: str | None) -> Iterator[TextIO | None]:
    """Open where rows go; a regular file appears when it is complete, or not at all."""
    if out is None:
        yield None
    elif out == "-":
        with _writer(sys.stdout.fileno()) as output:
            yield output
    elif Path(out).exists() and not Path(out).is_file():  # a pipe or a device
        with _writer(out) as output:
            yield output
    else:
        path = Path(out)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with _writer(unfinished) as output:
                yield output
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)


def _writer(place: int | str | Path) -> TextIO:
    # A lone surrogate in a response has no UTF-8; its backslash escape is what JSON writes for it.
    return open(
        place, "w", encoding="utf-8", errors="backslashreplace", newline="\n", closefd=not isinstance(place, int)
    )


def _show(summary: Summary, bad: int, console: "Console") -> None:
    if summary.rows:
        console.print(_table(summary, bad))
    for (term, reason), times in summary.reasons.most_common(_SHOWN):
        console.print(f"failed: {term}, {times} times: {reason}")
    for times in sorted(set(summary.unread.values()), reverse=True):
        names = ", ".join(name for name, rows in summary.unread.items() if rows == times)
        console.print(f"not read, in {times} rows: {names}")
    terms = summary.columns.get("terms", {})
    correlated = correlations({name: summary.column("terms", name) for name in terms})
    for pair, correlation in correlated.items():
        console.print(f"correlation: {pair[0]} and {pair[1]} {correlation:+.2f}")
    spreads = {name: Spread.of(numbers) for name, numbers in summary.columns.get("diagnostics", {}).items()}
    means = {name: spread.mean for name, spread in spreads.items() if spread.count >= MIN_RESPONSES}
    for message in warnings(means, correlated).values():
        console.print(f"warning: {message}")


def _table(summary: Summary, bad: int) -> "Table":
    from rich.table import Table

    table = Table(title=f"{summary.rows} rows scored, {bad} bad; n/a: not applicable")
    if summary.rows < MIN_RESPONSES:
        table.caption = f"too few rows for correlations and warnings: they need {MIN_RESPONSES}"
    table.add_column(no_wrap=True)
    for heading in ("rows", "mean", "std", "zero", "n/a", "failed"):
        table.add_column(heading, justify="right")
    table.add_row(*_cells(summary, "score", "score"), *_status_cells(summary, "score"), end_section=True)
    for term in (name for name in summary.statuses if name != "score"):
        table.add_row(*_cells(summary, "terms", term), *_status_cells(summary, term))
        for part, numbers in summary.columns.get(f"parts of {term}", {}).items():
            # Many a term has its value as a part. Bytes are compared because a gap, NaN, does not equal itself.
            if part != term or numbers.tobytes() != summary.columns["terms"][term].tobytes():
                table.add_row(*_cells(summary, f"parts of {term}", part, indent="  "))
    table.add_section()
    for name in summary.columns["diagnostics"]:
        table.add_row(*_cells(summary, "diagnostics", name))
    return table


def _cells(summary: Summary, group: str, name: str, indent: str = "") -> tuple[str, ...]:
    spread = Spread.of(summary.columns.get(group, {}).get(name, ()))
    if not spread.count:
        return f"{indent}{name}", "0", "-", "-", "-"
    return (
        f"{indent}{name}",
        str(spread.count),
        f"{spread.mean:.3f}",
        f"{spread.std:.3f}",
        f"{100 * spread.zero_rate:.0f} %",
    )


def _status_cells(summary: Summary, name: str) -> tuple[str, str]:
    statuses = summary.statuses[name]
    return str(statuses["not_applicable"]), str(statuses["failed"])


def _list(console: "Console") -> None:
    from rich.padding import Padding
    from rich.table import Table

    for name in BUILT_IN:
        description = describe(name)
        console.print(name, style="bold")
        for paragraph in description.text.split("\n\n"):
            console.print(Padding(" ".join(paragraph.split()), (0, 0, 0, 2)))
        parameters = Table.grid(padding=(0, 2, 0, 0))
        for parameter in description.parameters:
            default = "" if parameter.default is None else f" = {parameter.default}"
            parameters.add_row(f"{parameter.name}{default}", parameter.meaning)
        console.print(Padding(parameters, (0, 0, 1, 4)))


if __name__ == "__main__":
    sys.exit(main())
