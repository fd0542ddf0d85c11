"""The figure of TreeBench's paper: how well the boxes of right and of wrong answers fit (arXiv 2507.07999)."""

from collections.abc import Sequence
from pathlib import Path

from vgr_rl.benchmarks.choice_score import Graded
from vgr_rl.benchmarks.figures import check_names, save

_BINS = 20
_RIGHT, _WRONG = "C0", "C1"
_PANEL_INCHES = (3.4, 2.8)


def draw_histogram(graded: Sequence[Graded], title: str, paths: Sequence[Path]) -> None:
    """Draw the IoU of each question, right and wrong answers stacked: of all, then of each protocol.

    Args:
        graded: questions; those without true boxes, or an answer to grade, are left out.
        title: stands above the figure.
        paths: .png, .svg and .pdf files.

    Raises:
        ValueError: if no question has true boxes, or the name has another ending.
    """
    rows = [row for row in graded if row.iou is not None and row.correct is not None]
    if not rows:
        raise ValueError(f"--figure={paths[0]}: {title} has no true boxes to draw a histogram of")
    check_names(paths, "--figure")
    from matplotlib.figure import Figure  # without pyplot there is no screen and no state to care for

    groups = dict.fromkeys(row.item.category.partition("/")[0] for row in rows)
    panels = {"Overall": rows} | {
        group: [row for row in rows if row.item.category.startswith(group)] for group in groups if len(groups) > 1
    }
    figure = Figure(figsize=(len(panels) * _PANEL_INCHES[0], _PANEL_INCHES[1]), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)
    for axis, (name, own) in zip(axes.flat, panels.items(), strict=True):
        sides = [[row.iou for row in own if row.correct], [row.iou for row in own if not row.correct]]
        labels = [f"right (n = {len(sides[0])})", f"wrong (n = {len(sides[1])})"]
        axis.hist(sides, bins=_BINS, range=(0, 1), stacked=True, color=[_RIGHT, _WRONG], label=labels)
        axis.set_title(name, fontsize=10, loc="left")
        axis.set_xlabel("mean IoU of a question", fontsize=8)
        axis.set_ylabel("questions", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=11)
    save(figure, paths)
