"""What the figures of benchmarks share: their files, and points with names."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation

SUFFIXES = (".png", ".svg", ".pdf")
OURS, PUBLISHED = "C0", "0.45"
_DPI = 150
_OFFSETS = [(x, y * far) for far in (3, 12, 22) for x, y in ((5, 1), (-5, 1), (5, -1), (-5, -1), (0, 3), (0, -3))]
_DOT = 6  # pixels around its centre


class Point(NamedTuple):
    """A model in a figure."""

    name: str
    published: bool
    x: float
    y: float


def check_names(paths: Sequence[Path], knob: str) -> None:
    """Check that figures can be written in the formats that their names ask for.

    Raises:
        ValueError: if a name has another ending.
    """
    if other := [path for path in paths if path.suffix not in SUFFIXES]:
        raise ValueError(f"{knob}={other[0]}: the name must end in one of {', '.join(SUFFIXES)}")


def save(figure: "Figure", paths: Sequence[Path]) -> None:
    """Write a figure to each of the files."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=_DPI, metadata={"Date": None} if path.suffix == ".svg" else None)


def draw_points(axis: "Axes", points: Sequence[Point]) -> None:
    """Draw a dot for each model; `name_points` writes the names once the layout is known."""
    for published, colour, label in ((True, PUBLISHED, "published"), (False, OURS, "scored here")):
        own = [point for point in points if point.published == published]
        if own:
            axis.scatter([p.x for p in own], [p.y for p in own], s=22, color=colour, label=label, zorder=3)
    axis.margins(0.14)
    axis.grid(color="0.92", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def name_points(figure: "Figure", axis: "Axes", points: Sequence[Point]) -> None:
    """Write each model's name beside its dot, where it covers as little as possible of other names and dots."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.transforms import Bbox

    renderer, inside = FigureCanvasAgg(figure).get_renderer(), axis.get_window_extent()
    dots = [axis.transData.transform((point.x, point.y)) for point in points]
    taken = [Bbox.from_extents(x - _DOT, y - _DOT, x + _DOT, y + _DOT) for x, y in dots]

    def overlap(box: Bbox, other: Bbox) -> float:
        common = Bbox.intersection(box, other)
        return 0.0 if common is None else float(common.width * common.height)

    for point in points:
        colour = PUBLISHED if point.published else OURS
        text = axis.annotate(
            point.name, (point.x, point.y), (0, 0), textcoords="offset points", fontsize=7, color=colour, va="center"
        )

        def place(offset: tuple[float, float], text: "Annotation" = text) -> Bbox:
            text.set_position(offset)
            text.set_horizontalalignment("center" if not offset[0] else "left" if offset[0] > 0 else "right")
            return text.get_window_extent(renderer)

        def cost(offset: tuple[float, float]) -> float:
            box = place(offset)
            return sum(overlap(box, other) for other in taken) + box.width * box.height - overlap(box, inside)

        taken.append(place(min(_OFFSETS, key=cost)).padded(_DOT))
