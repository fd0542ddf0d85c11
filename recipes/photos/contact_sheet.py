"""One picture of all questions with their boxes drawn, to check the boxes by looking."""

import textwrap
from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from recipes.photos.photographs import photograph

COLUMNS = 3
PICTURE, MARGIN, TEXT_HEIGHT = 320, 8, 96
PANEL_WIDTH, PANEL_HEIGHT = 2 * (PICTURE + MARGIN), PICTURE + MARGIN + TEXT_HEIGHT
_COLORS = ("#00e5ff", "#ff3030", "#ffe000", "#40ff40", "#ff40ff", "#ff9000", "#ffffff", "#60a0ff")
_LINE_CHARS, _LINES = 100, 6
_CLOSE_UP_MARGIN, _MAX_ENLARGEMENT = 0.15, 12.0

Targets = Sequence[dict[str, Any]]


def contact_sheet(questions: Sequence[dict[str, Any]]) -> Image.Image:
    """Draw one panel a question: the photograph, a close-up of its targets, the question and its answer.

    Boxes are outlined; their numbers are those of the names in the text.
    """
    rows = -(-len(questions) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * PANEL_WIDTH, rows * PANEL_HEIGHT), "white")
    images = {image: photograph(image) for image in {question["images"][0] for question in questions}}
    for index, question in enumerate(questions):
        row, column = divmod(index, COLUMNS)
        panel = _panel(question, images[question["images"][0]])
        sheet.paste(panel, (column * PANEL_WIDTH, row * PANEL_HEIGHT))
    return sheet


def _panel(question: dict[str, Any], image: Image.Image) -> Image.Image:
    panel = Image.new("RGB", (PANEL_WIDTH, PANEL_HEIGHT), "white")
    targets = question["target_instances"]
    whole = (0, 0, image.width, image.height)
    panel.paste(_view(image, targets, whole), (0, 0))
    panel.paste(_view(image, targets, _around(targets, image.size)), (PICTURE + MARGIN, 0))
    text = question["problem"].removeprefix("<image>\n").replace("\n", "   ")
    names = ", ".join(f"{number} {target['name']}" for number, target in enumerate(targets, start=1))
    lines = textwrap.wrap(f"{question['id']}: {text}", _LINE_CHARS)[: _LINES - 2]
    lines += [f"answer: {question['answer']}", f"boxes: {names}"]
    draw = ImageDraw.Draw(panel)
    draw.multiline_text((2, PICTURE + MARGIN), "\n".join(lines), fill="black", font=ImageFont.load_default(12))
    return panel


def _view(image: Image.Image, targets: Targets, region: tuple[int, int, int, int]) -> Image.Image:
    """Return a region (pixels) of the photograph, fitted into the picture's square, with the boxes that lie in it."""
    left, top, right, bottom = region
    scale = min(PICTURE / (right - left), PICTURE / (bottom - top), _MAX_ENLARGEMENT)
    size = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
    view = image.resize(size, Image.Resampling.BICUBIC, box=region)
    draw = ImageDraw.Draw(view)
    for index, target in enumerate(targets):
        x1, y1, x2, y2 = target["bbox"]
        box = ((x1 - left) * scale, (y1 - top) * scale, (x2 - left) * scale - 1, (y2 - top) * scale - 1)
        _outline(draw, box, str(index + 1), _COLORS[index % len(_COLORS)])
    return view


def _outline(draw: ImageDraw.ImageDraw, box: tuple[float, float, float, float], number: str, color: str) -> None:
    x1, y1, x2, y2 = box
    x2, y2 = max(x1 + 1, x2), max(y1 + 1, y2)
    draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=color, width=2)
    above = y1 - 14 if y1 >= 14 else y1 + 1
    draw.text((x1 + 1, above), number, fill=color, font=ImageFont.load_default(12), stroke_width=1, stroke_fill="black")


def _around(targets: Targets, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the region (pixels) that holds all targets and a margin, inside the photograph."""
    boxes = [target["bbox"] for target in targets]
    x1, y1 = min(box[0] for box in boxes), min(box[1] for box in boxes)
    x2, y2 = max(box[2] for box in boxes), max(box[3] for box in boxes)
    margin = max(4, round(_CLOSE_UP_MARGIN * max(x2 - x1, y2 - y1)))
    return (
        max(0, int(x1) - margin),
        max(0, int(y1) - margin),
        min(size[0], int(x2) + margin),
        min(size[1], int(y2) + margin),
    )
