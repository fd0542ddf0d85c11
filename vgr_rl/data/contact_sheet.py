"""One picture of many rows with their boxes drawn, to check the boxes by looking."""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from vgr_rl.data.images import decode_image
from vgr_rl.data.schema import ImageRef
from vgr_rl.grounding.frames import Box

COLUMNS = 3
PICTURE, MARGIN, TEXT_HEIGHT = 320, 8, 96
PANEL_WIDTH, PANEL_HEIGHT = 2 * (PICTURE + MARGIN), PICTURE + MARGIN + TEXT_HEIGHT
_COLORS = ("#00e5ff", "#ff3030", "#ffe000", "#40ff40", "#ff40ff", "#ff9000", "#ffffff", "#60a0ff")
_LINE_CHARS, _LINES = 100, 6
_CLOSE_UP_MARGIN, _MAX_ENLARGEMENT = 0.15, 12.0


@dataclass(frozen=True, slots=True)
class Panel:
    """What is drawn of one row.

    Attributes:
        image: the picture, or None when it cannot be read.
        boxes_orig_px: boxes, outlined and numbered from 1.
        text: the question; as many lines as fit are shown.
        footer: lines below it, such as the answer.
    """

    image: Image.Image | None
    boxes_orig_px: Sequence[Box]
    text: str
    footer: Sequence[str]


def contact_sheet(panels: Iterable[Panel]) -> Image.Image:
    """Draw the panels, each with its whole picture, a close-up of its boxes and its text; one is held at a time."""
    drawn = [_draw(panel) for panel in panels]
    rows = -(-len(drawn) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * PANEL_WIDTH, max(rows, 1) * PANEL_HEIGHT), "white")
    for index, panel in enumerate(drawn):
        row, column = divmod(index, COLUMNS)
        sheet.paste(panel, (column * PANEL_WIDTH, row * PANEL_HEIGHT))
    return sheet


def upright_picture(image: ImageRef | None) -> Image.Image | None:
    """Decode an image to RGB as it is meant to be seen (EXIF orientation applied); None when that is impossible."""
    if image is None:
        return None
    try:
        return decode_image(image)
    except (OSError, SyntaxError, ValueError):
        return None


def _draw(panel: Panel) -> Image.Image:
    drawn = Image.new("RGB", (PANEL_WIDTH, PANEL_HEIGHT), "white")
    if panel.image is not None:
        drawn.paste(_view(panel.image, panel.boxes_orig_px, (0, 0, *panel.image.size)), (0, 0))
        if panel.boxes_orig_px:
            region = _around(panel.boxes_orig_px, panel.image.size)
            drawn.paste(_view(panel.image, panel.boxes_orig_px, region), (PICTURE + MARGIN, 0))
    footer = [line for text in panel.footer for line in textwrap.wrap(text, _LINE_CHARS)[:1]]
    lines = textwrap.wrap(panel.text, _LINE_CHARS)[: _LINES - len(footer)] + footer
    draw = ImageDraw.Draw(drawn)
    draw.multiline_text((2, PICTURE + MARGIN), "\n".join(lines), fill="black", font=ImageFont.load_default(12))
    return drawn


def _view(image: Image.Image, boxes: Sequence[Box], region: tuple[int, int, int, int]) -> Image.Image:
    """Return a region (pixels) of the picture, fitted into the panel's square, with the boxes that lie in it."""
    left, top, right, bottom = region
    scale = min(PICTURE / (right - left), PICTURE / (bottom - top), _MAX_ENLARGEMENT)
    size = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
    view = image.resize(size, Image.Resampling.BICUBIC, box=region, reducing_gap=2.0)
    draw = ImageDraw.Draw(view)
    for index, (x1, y1, x2, y2) in enumerate(boxes):
        box = ((x1 - left) * scale, (y1 - top) * scale, (x2 - left) * scale - 1, (y2 - top) * scale - 1)
        _outline(draw, box, str(index + 1), _COLORS[index % len(_COLORS)])
    return view


def _outline(draw: ImageDraw.ImageDraw, box: tuple[float, float, float, float], number: str, color: str) -> None:
    x1, y1, x2, y2 = box
    x2, y2 = max(x1 + 1, x2), max(y1 + 1, y2)
    draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=color, width=2)
    above = y1 - 14 if y1 >= 14 else y1 + 1
    draw.text((x1 + 1, above), number, fill=color, font=ImageFont.load_default(12), stroke_width=1, stroke_fill="black")


def _around(boxes: Sequence[Box], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the region (pixels) that holds all boxes and a margin, inside the picture."""
    x1, y1 = min(box[0] for box in boxes), min(box[1] for box in boxes)
    x2, y2 = max(box[2] for box in boxes), max(box[3] for box in boxes)
    margin = max(4, round(_CLOSE_UP_MARGIN * max(x2 - x1, y2 - y1)))
    return (
        max(0, int(x1) - margin),
        max(0, int(y1) - margin),
        min(size[0], int(x2) + margin),
        min(size[1], int(y2) + margin),
    )
