"""Tables: two evaluations of the same items, and the start and end of one run."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from vgr_rl.benchmarks.summary import LABELS, MEASURES, Estimate, compare, item, number, part_label, part_of, signed
from vgr_rl.diagnosis.limits import WINDOW
from vgr_rl.viewer.runs import EvaluationRun, Series

_NEUTRAL = ("boxes", "length")  # more is neither better nor worse
_CLEAR = 1.96  # standard errors


@dataclass(frozen=True, slots=True)
class Cell:
    """A number and its standard error, formatted; `error` is "" when it is not known."""

    mean: str
    error: str


@dataclass(frozen=True, slots=True)
class TableRow:
    """One measure: both values, their paired difference, and its `trend`.

    `trend` is "better", "worse", "changed", "unclear", or "" where the difference has no error.
    """

    label: str
    before: Cell
    after: Cell
    difference: Cell
    trend: str


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of one mode over `n` items that both evaluations have."""

    mode: str
    n: int
    rows: tuple[TableRow, ...]


def comparison(before: EvaluationRun, after: EvaluationRun) -> list[Table]:
    """Return one table for each mode that both evaluations have.

    Raises:
        ValueError: when they have no mode, or no item, in common.
    """
    modes = [mode for mode in before.summary if mode in after.summary]
    if not modes:
        raise ValueError(f"{before.path} has modes {list(before.summary)} but {after.path} has {list(after.summary)}")
    return [_table(mode, before, after) for mode in modes]


def start_and_end(metrics: Mapping[str, Series]) -> Table | None:
    """Return the mean reward and parts of a run over its first and its last steps, which do not overlap.

    Windows have ten steps of the reward, or half of them where there are fewer; parts that were logged too seldom for
    two windows are left out. None without two steps of a reward.
    """
    found = {part: points for name, points in metrics.items() if (part := part_of(name))}
    window = min(WINDOW, len(found.get("score", ())) // 2)
    if not window:
        return None
    rows = []
    for part in sorted(found, key=lambda part: (part != "score", part)):
        values = [value for _, value in found[part]]
        if len(values) < 2 * window:
            continue
        start, end = fmean(values[:window]), fmean(values[-window:])
        cells = (Cell(number(start), ""), Cell(number(end), ""), Cell(signed(end - start), ""))
        rows.append(TableRow("Reward" if part == "score" else part_label(part), *cells, trend=""))
    return Table("start and end", window, tuple(rows))


def markdown(tables: list[Table]) -> str:
    """Return the tables as one markdown table: mean ± standard error, and the paired difference."""
    lines = [
        f"| {tables[0].n} held-out items | | cold start | GRPO | paired difference |",
        "|---|---|---|---|---|",
    ]
    for table in tables:
        for row in table.rows:
            cells = [f"{cell.mean} ± {cell.error}" if cell.error else cell.mean for cell in _cells(row)]
            lines.append(f"| {table.mode} | {row.label} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cells(row: TableRow) -> tuple[Cell, Cell, Cell]:
    return row.before, row.after, row.difference


def _table(mode: str, before: EvaluationRun, after: EvaluationRun) -> Table:
    differences = compare(before.rows[mode], after.rows[mode])
    old, new = before.summary[mode], after.summary[mode]
    rows = tuple(
        TableRow(LABELS[name], _cell(old, name), _cell(new, name), _difference(differences[name]), _trend(name, change))
        for name in MEASURES
        if old.get(name) is not None and new.get(name) is not None
        for change in (differences[name],)
    )
    shared = set(map(item, before.rows[mode])) & set(map(item, after.rows[mode]))
    return Table(mode, len(shared), rows)


def _cell(summary: dict[str, Any], name: str) -> Cell:
    error = summary["stderr"].get(name)
    return Cell(number(summary[name]), "" if error is None else number(error))


def _difference(change: Estimate) -> Cell:
    if not change.n:
        return Cell("–", "")
    return Cell(signed(change.mean), "" if math.isnan(change.stderr) else number(change.stderr))


def _trend(name: str, change: Estimate) -> str:
    if not change.n or math.isnan(change.stderr) or abs(change.mean) <= _CLEAR * change.stderr:
        return "unclear"
    if name in _NEUTRAL:
        return "changed"
    return "better" if change.mean > 0 else "worse"
