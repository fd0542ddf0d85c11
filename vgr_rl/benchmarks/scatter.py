"""Figures over models: accuracy against mIoU, and how benchmarks go together (arXiv 2507.07999)."""

from collections import Counter
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


def miou_panel(name: str, results: Sequence[Mapping[str, Any]]) -> Panel:
    """Set accuracy against mIoU, in percent, of the published rows of a benchmark and of results.

    Raises:
        ValueError: if no model has both, two results have one name, or a result is of another benchmark.
    """
    lines = _shares(name, results, (_MIOU, _ACCURACY))
    points = [_point(x, y, line) for line, (x, y) in lines if x is not None and y is not None]
    if not points:
        raise ValueError(f"no model has both accuracy and mIoU of {title(name)}; give results with true boxes")
    return Panel(title(name), "mIoU, %", "accuracy, %", points)


def correlation_panels(results: Sequence[Mapping[str, Any]]) -> list[Panel]:
    """Set the accuracies of models on one benchmark against those on another: a panel for each pair, with Pearson's r.

    Models are told apart by their names: a published row of one benchmark goes with a result of another. Pairs that
    fewer than two models have are left out.

    Raises:
        ValueError: if there is no such pair, two models of a benchmark have one name, or a result has no accuracy.
    """
    if other := {result["extra"]["benchmark"] for result in results} - RUNNABLE.keys():
        raise ValueError(f"{title(other.pop())} has no accuracy; give results of {', '.join(RUNNABLE)}")
    shares = {
        name: _accuracies(name, [result for result in results if result["extra"]["benchmark"] == name])
        for name in RUNNABLE
    }
    panels = []
    for (x, xs), (y, ys) in combinations(shares.items(), 2):
        points = [_point(xs[model][1], ys[model][1], xs[model][0], ys[model][0]) for model in xs if model in ys]
        if len(points) > 1:
            panels.append(Panel(_correlation(points), f"{title(x)}, accuracy, %", f"{title(y)}, accuracy, %", points))
    if not panels:
        raise ValueError("no two models have results on the same two benchmarks; results are matched by their names")
    return panels


def draw(panels: Sequence[Panel], paths: Sequence[Path]) -> None:
    """Draw panels side by side.

    Raises:
        ValueError: if the name of a file has another ending than those of figures.
    """
    from matplotlib.figure import Figure  # without pyplot there is no screen and no state to care for
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    check_names(paths, "--out")
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


def _shares(
    name: str, results: Sequence[Mapping[str, Any]], measures: Sequence[str]
) -> list[tuple[Line, list[float | None]]]:
    """Return the published rows and the results, each with these of its numbers in percent; None: unknown."""
    _check_different([result["extra"]["name"] for result in results], name)
    table = build(name, results)
    places = {column.at: place for place, column in enumerate(table.columns)}
    at = [places.get((measure,)) for measure in measures]
    published = [
        (line, [None if place is None else line.values[place] for place in at])
        for line in table.lines
        if line.published
    ]
    lines = [line for line in table.lines if not line.published]
    ours = [
        (line, [None if (share := result.get(measure)) is None else 100 * share for measure in measures])
        for line, result in zip(lines, results, strict=True)
    ]
    return [*published, *ours]


def _accuracies(name: str, results: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Line, float]]:
    known = [(line, value) for line, (value,) in _shares(name, results, (_ACCURACY,)) if value is not None]
    _check_different([line.model for line, _ in known], name)
    return {line.model: (line, value) for line, value in known}


def _check_different(models: Sequence[str], benchmark: str) -> None:
    if twice := [model for model, count in Counter(models).items() if count > 1]:
        raise ValueError(
            f"two models of {title(benchmark)} are called {twice[0]}, as the file of predictions or its folder is: "
            "score one again under another name"
        )


def _point(x: float, y: float, *lines: Line) -> Point:
    mark = "*" if any(line.note for line in lines) else ""
    return Point(f"{lines[0].model}{mark}", all(line.published for line in lines), x, y)
