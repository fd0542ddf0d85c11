"""Tables in the papers' layout: published rows, then ours, with what the official numbers do not show."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

Format = Literal["md", "tex", "json"]
FORMATS: tuple[Format, ...] = ("md", "tex", "json")

PUBLISHED = Path(__file__).parent / "published"
_BESIDE: tuple[tuple[str, tuple[str, ...], float], ...] = (
    ("Precision IoU", ("extra", "precision_iou"), 100),
    ("Dual IoU", ("extra", "dual_iou"), 100),
    ("Boxes", ("extra", "boxes_per_answer"), 1),
)
_DESCRIPTION = {"benchmark", "name", "convention", "whole_benchmark", "n", "missing"}
_TEX = str.maketrans({character: f"\\{character}" for character in "&%$#_{}"})


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its title, where a result has its value, the group it stands under, and a factor for the value."""

    title: str
    at: tuple[str, ...]
    group: str = ""
    scale: float = 100


@dataclass(frozen=True, slots=True)
class Line:
    """A row: a model, its values in the order of the columns (None: unknown), and a note under the table."""

    model: str
    published: bool
    values: Sequence[float | None]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of one benchmark, shares in percent; `source` of the published rows, None where there are none."""

    title: str
    source: str | None
    columns: Sequence[Column]
    lines: Sequence[Line]


def build(name: str, results: Sequence[Mapping[str, Any]]) -> Table:
    """Put results of `suite.score` under the published rows of a benchmark.

    Raises:
        ValueError: if a result is of another benchmark.
    """
    layout = yaml.safe_load((PUBLISHED / f"{name}.yaml").read_text(encoding="utf-8"))
    columns = [Column(column["title"], tuple(column["at"]), column.get("group", "")) for column in layout["columns"]]
    published = [Line(row["model"], True, row["values"]) for row in layout["rows"]]
    beside = [Column(title, at, scale=scale) for title, at, scale in _BESIDE]
    columns += [column for column in beside if any(isinstance(_at(result, column.at), float) for result in results)]
    padded = [Line(line.model, True, _padded(line.values, len(columns))) for line in published]
    return Table(layout["title"], layout["source"], columns, [*padded, *(_line(name, columns, one) for one in results)])


def read_result(path: Path) -> dict[str, Any]:
    """Read what `score --json` wrote.

    Raises:
        ValueError: if it is absent or something else.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    extra = result.get("extra") if isinstance(result, dict) else None
    if not isinstance(extra, dict) or not extra.keys() >= _DESCRIPTION:
        raise ValueError(f"{path} is no result; make one with `python -m vgr_rl.evaluate score … --json {path}`")
    return result


def render(table: Table, form: Format) -> str:
    """Return the table as markdown, LaTeX (booktabs) or JSON."""
    return {"md": _markdown, "tex": _latex, "json": _json}[form](table)


def _line(name: str, columns: Sequence[Column], result: Mapping[str, Any]) -> Line:
    extra = result["extra"]
    if extra["benchmark"] != name:
        raise ValueError(f"{extra['name']} is a result of {extra['benchmark']}, not of {name}")
    notes = [f"convention {extra['convention']}"] if extra["convention"] != "authors" else []
    notes += [] if extra["whole_benchmark"] else [f"not with the published counts (n = {extra['n']})"]
    notes += [f"{extra['missing']} questions without a prediction"] if extra["missing"] else []
    values = [_at(result, column.at) for column in columns]
    scaled = [None if value is None else value * column.scale for value, column in zip(values, columns, strict=True)]
    return Line(extra["name"], False, scaled, "; ".join(notes))


def _at(result: Mapping[str, Any], path: Sequence[str]) -> float | None:
    value: Any = result
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, int | float) else None


def _caption(table: Table) -> str:
    return f"{table.title}; published rows: {table.source}" if table.source else table.title


def _padded(values: Sequence[float | None], count: int) -> list[float | None]:
    return [*values, *[None] * (count - len(values))]


def _cells(line: Line) -> list[str]:
    return ["–" if value is None else f"{value:.1f}" for value in line.values]


def _markdown(table: Table) -> str:
    titles = [" ".join(filter(None, (column.group, column.title))) for column in table.columns]
    notes = [line.note for line in table.lines if line.note]
    rows = [["Model", *titles]]
    for line in table.lines:
        mark = f" [{notes.index(line.note) + 1}]" if line.note else ""
        rows.append([f"{line.model if line.published else f'**{line.model}**'}{mark}", *_cells(line)])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, f"|---{'|---:' * len(titles)}|")
    footer = [f"[{number}] {note}" for number, note in enumerate(notes, start=1)]
    return "\n".join([*lines, "", f"{_caption(table)}.", *footer]) + "\n"


def _latex(table: Table) -> str:
    groups: list[tuple[str, int]] = []
    for column in table.columns:
        same = groups and groups[-1][0] == column.group
        groups = [*groups[:-1], (column.group, groups[-1][1] + 1)] if same else [*groups, (column.group, 1)]
    head = [rf"\multicolumn{{{width}}}{{c}}{{{group.translate(_TEX)}}}" for group, width in groups]
    lines = [
        f"% {_caption(table)}",
        rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        r"\toprule",
        rf" & {' & '.join(head)} \\",
        rf"Model & {' & '.join(column.title.translate(_TEX) for column in table.columns)} \\",
        r"\midrule",
    ]
    for index, line in enumerate(table.lines):
        if index and table.lines[index - 1].published and not line.published:
            lines.append(r"\midrule")
        cells = (cell.replace("–", "--") for cell in _cells(line))
        note = f" % {line.note}" if line.note else ""
        lines.append(rf"{line.model.translate(_TEX)} & {' & '.join(cells)} \\{note}")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _json(table: Table) -> str:
    columns = [{"title": column.title, "group": column.group, "at": column.at} for column in table.columns]
    rows = [
        {"model": line.model, "published": line.published, "values": line.values, "note": line.note}
        for line in table.lines
    ]
    content = {"title": table.title, "source": table.source, "columns": columns, "rows": rows}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
