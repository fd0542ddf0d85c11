"""Figures over models: accuracy against mIoU, and how benchmarks go together (arXiv 2507.07999)."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import correlation
from typing import Any, NamedTuple

from vgr_rl.benchmarks.figures import Point, check_names, draw_points, name_points, save
from vgr_rl.benchmarks.suite import RUNNABLE, title
from vgr_rl.benchmarks.tables import Line, build

CORRELATION = "correlation"
_ACCURACY, _MIOU = "overall", "miou"
_PANEL_INCHES = (4.2, 3.6)
_MOST_COLUMNS = 3
_FEWEST = 3  # any two points lie on a line
_NOTE = "* not the whole benchmark, answers are missing, or not the authors' convention"


class Panel(NamedTuple):
    """One pair of axes."""

    heading: str
    x: str
    y: str
    points: Sequence[Point]


def draw_miou(name: str, results: Sequence[Mapping[str, Any]], paths: Sequence[Path]) -> None:
    """Draw accuracy against mIoU, in percent, of the published rows of a benchmark and of results.

    Raises:
        ValueError: if no model has both, a result is of another benchmark, or the name of a file has another ending.
    """
    check_names(paths, "--out")
    points = _points(_shares(name, results, _MIOU), _shares(name, results, _ACCURACY))
    if not points:
        raise ValueError(f"no model has both accuracy and mIoU of {title(name)}; give results with true boxes")
    _draw([Panel(title(name), "mIoU, %", "accuracy, %", points)], paths)


def draw_correlation(results: Sequence[Mapping[str, Any]], paths: Sequence[Path]) -> None:
    """Draw the accuracies of models on one benchmark against those on another: a panel for each pair, with Pearson's r.

    Models are told apart by their names, which published rows and results may share. Pairs that fewer than two models
    have are left out.

    Raises:
        ValueError: if there is no such pair, a result has no accuracy, or the name of a file has another ending.
    """
    check_names(paths, "--out")
    if other := {result["extra"]["benchmark"] for result in results} - RUNNABLE.keys():
        raise ValueError(f"{title(other.pop())} has no accuracy; give results of {', '.join(RUNNABLE)}")
    shares = {
        name: _shares(name, [result for result in results if result["extra"]["benchmark"] == name], _ACCURACY)
        for name in RUNNABLE
    }
    panels = []
    for x, y in combinations(shares, 2):
        points = _points(shares[x], shares[y])
        if len(points) > 1:
            panels.append(Panel(_correlation(points), f"{title(x)}, accuracy, %", f"{title(y)}, accuracy, %", points))
    if not panels:
        raise ValueError("no two models have results on the same two benchmarks; results are matched by their names")
    _draw(panels, paths)


def pearson(points: Sequence[Point]) -> float | None:
    """Return Pearson's correlation coefficient; None for fewer than three points, or equal numbers on a side."""
    xs, ys = [point.x for point in points], [point.y for point in points]
    if len(points) < _FEWEST or len(set(xs)) == 1 or len(set(ys)) == 1:
        return None
    return correlation(xs, ys)


def _correlation(points: Sequence[Point]) -> str:
    coefficient = pearson(points)
    known = "" if coefficient is None else f"r = {coefficient:.2f}, "
    return f"{known}{len(points)} models"


def _shares(name: str, results: Sequence[Mapping[str, Any]], measure: str) -> dict[str, tuple[Line, float]]:
    """Return a number of the published rows and of results, in percent, of each model that has it."""
    table = build(name, results)
    index = next((index for index, column in enumerate(table.columns) if column.at == (measure,)), None)
    published = [(line, line.values[index]) for line in table.lines if line.published and index is not None]
    lines = [line for line in table.lines if not line.published]
    ours = [
        (line, 100 * result[measure])
        for line, result in zip(lines, results, strict=True)
        if result[measure] is not None
    ]
    return {line.model: (line, value) for line, value in [*published, *ours] if value is not None}


def _points(xs: Mapping[str, tuple[Line, float]], ys: Mapping[str, tuple[Line, float]]) -> list[Point]:
    points = []
    for model, (line, x) in xs.items():
        if model in ys:
            other, y = ys[model]
            mark = "*" if line.note or other.note else ""
            points.append(Point(f"{model}{mark}", line.published and other.published, x, y))
    return points


def _draw(panels: Sequence[Panel], paths: Sequence[Path]) -> None:
    from matplotlib.figure import Figure  # without pyplot there is no screen and no state to care for
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    columns = min(len(panels), _MOST_COLUMNS)
    rows = -(-len(panels) // columns)
    size = columns * _PANEL_INCHES[0], rows * _PANEL_INCHES[1]
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08))
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis, panel in zip(axes, panels, strict=False):
        draw_points(axis, panel.points)
        axis.set_title(panel.heading, fontsize=10, loc="left")
        axis.set_xlabel(panel.x, fontsize=8)
        axis.set_ylabel(panel.y, fontsize=8)
    for axis in axes[len(panels) :]:
        axis.remove()
    if any(point.name.endswith("*") for panel in panels for point in panel.points):
        figure.supxlabel(_NOTE, fontsize=7, color="0.45", x=0.01, ha="left")
    marks = {label: mark for axis in figure.axes for mark, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(marks.values(), marks.keys(), loc="outside upper right", ncols=2, fontsize=8, frameon=False)
    figure.draw_without_rendering()  # the layout decides where names fit
    for axis, panel in zip(figure.axes, panels, strict=True):
        name_points(figure, axis, panel.points)
    figure.set_layout_engine("none")
    save(figure, paths)
