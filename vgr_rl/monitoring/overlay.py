"""A rollout on its picture: predicted and true boxes and masks in pixels of the picture as it is shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vgr_rl.grounding import Box, Rle, Size, best_iou
from vgr_rl.grounding.masks import decode, resample
from vgr_rl.viewer.pictures import CRISP_SIDE, LONGEST_SIDE, fitted

Kind = Literal["true", "predicted"]

MAX_SHAPES = 100
"""Boxes, and masks, of one kind on one picture: a response may have thousands."""

COLOURS: dict[Kind, tuple[int, int, int]] = {"true": (0, 158, 115), "predicted": (230, 97, 0)}
"""Green and orange that the colour-blind tell apart."""

_MASK_OPACITY, _LABEL_HEIGHT_PX = np.uint8(110), 13


@dataclass(frozen=True, slots=True)
class ShownBox:
    """A box on a picture.

    Attributes:
        box_shown_px: in pixels of the picture as it is shown, not clipped to it.
        label: what is written beside it.
        iou: of a predicted box, its best IoU with any true one.
    """

    box_shown_px: Box
    label: str
    iou: float | None = None


@dataclass(frozen=True, slots=True)
class Overlay:
    """A picture with what the response and the truth point at.

    Attributes:
        picture: RGB, scaled to be looked at.
        file_type: how to store it; a photograph as PNG takes eighty times as long to encode.
        boxes: by kind.
        masks: by kind, `[height, width]` of the picture as it is shown: 0, or the number of a mask from 1.
        row: the rollout, as in samples.jsonl.
    """

    picture: Image.Image
    file_type: Literal["png", "jpeg"]
    boxes: Mapping[Kind, Sequence[ShownBox]]
    masks: Mapping[Kind, NDArray[np.uint8]]
    row: Mapping[str, Any]

    @property
    def caption(self) -> str:
        """One line: the sample, what was answered, what is true, the score, and what was left out."""
        row = self.row
        score = "failed" if row["score"] is None else f"{row['score']:.2f}"
        shown = f"{row['id']}: answered {row['predicted_answer']!r}, true {row['answer']!r}, score {score}"
        written = len(row["boxes_orig_px"])
        return shown if written <= MAX_SHAPES else f"{shown}; the first {MAX_SHAPES} of {written} boxes"

    def drawn(self) -> Image.Image:
        """Return the picture with everything drawn on it, for trackers that have no overlays of their own."""
        drawn = self.picture.copy()
        for kind, labels in self.masks.items():
            tint = Image.new("RGB", drawn.size, COLOURS[kind])
            drawn.paste(tint, mask=Image.fromarray(np.where(labels > 0, _MASK_OPACITY, np.uint8(0))))
        draw = ImageDraw.Draw(drawn)
        for kind, boxes in self.boxes.items():
            for box in boxes:
                _draw(draw, box, COLOURS[kind], at_bottom=kind == "true")
        return drawn


def _draw(draw: ImageDraw.ImageDraw, box: ShownBox, colour: tuple[int, int, int], at_bottom: bool) -> None:
    width, height = draw.im.size  # a response may name pixels that no canvas has
    x1, y1, x2, y2 = box.box_shown_px
    (left, right), (top, bottom) = (np.clip((x1, x2), -9, width + 9), np.clip((y1, y2), -9, height + 9))
    draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline="white", width=4)
    draw.rectangle((left, top, right, bottom), outline=colour, width=2)
    x, y = left, bottom - _LABEL_HEIGHT_PX if at_bottom else top
    label = " ".join(box.label.split())  # of one line, which alone can be measured
    draw.rectangle((x, y, x + draw.textlength(label) + 5, y + _LABEL_HEIGHT_PX), fill=colour)
    draw.text((x + 3, y + 1), label, fill="white")


def overlay(row: Mapping[str, Any], image: Image.Image) -> Overlay:
    """Lay a rollout over its image.

    Args:
        row: as in samples.jsonl: `boxes_orig_px`, `targets` (with `box`, `mask` and `name`, all optional) and
            perhaps `pred_masks` (null for one that could not be decoded), COCO run lengths at the stored size.
        image: RGB at its stored size.
    """
    size = shown_size(Size(*image.size))
    enlarged = size.width > image.width
    picture = image.resize(size, Image.Resampling.NEAREST if enlarged else Image.Resampling.BILINEAR, reducing_gap=2.0)
    scale = size.width / image.width, size.height / image.height
    predicted, boxed = row["boxes_orig_px"][:MAX_SHAPES], [target for target in row["targets"] if "box" in target]
    ious = best_iou(predicted, [target["box"] for target in boxed])[0] if boxed else [None] * len(predicted)
    true_masks = [target["mask"] for target in row["targets"] if "mask" in target]
    masks: dict[Kind, Any] = {"true": true_masks, "predicted": row.get("pred_masks")}
    return Overlay(
        picture,
        "png" if enlarged else "jpeg",
        {
            "true": [
                ShownBox(_scaled(target["box"], scale), target.get("name") or f"target {n}")
                for n, target in enumerate(boxed[:MAX_SHAPES], start=1)
            ],
            "predicted": [
                ShownBox(_scaled(box, scale), f"{n}" if iou is None else f"{n}: IoU {iou:.2f}", iou)
                for n, (box, iou) in enumerate(zip(predicted, ious, strict=True), start=1)
            ],
        },
        {kind: _label_map(rles, size) for kind, rles in masks.items() if rles},
        row,
    )


def shown_size(size: Size) -> Size:
    """Return the size in which an image is shown: drawn ones of a few pixels larger, photographs smaller.

    Example:
        >>> shown_size(Size(64, 32)), shown_size(Size(4000, 3000))
        (Size(width=256, height=128), Size(width=640, height=480))
    """
    times = -(-CRISP_SIDE // max(size))
    return Size(size.width * times, size.height * times) if times > 1 else fitted(size, LONGEST_SIDE)


def _scaled(box: Sequence[float], scale: tuple[float, float]) -> Box:
    x1, y1, x2, y2 = box
    return round(x1 * scale[0], 2), round(y1 * scale[1], 2), round(x2 * scale[0], 2), round(y2 * scale[1], 2)


def _label_map(rles: Sequence[Rle | None], size: Size) -> NDArray[np.uint8]:
    labels = np.zeros((size.height, size.width), dtype=np.uint8)
    for number, rle in enumerate(rles[:MAX_SHAPES], start=1):
        if rle is not None:
            labels[decode([resample(rle, size)])[0]] = number
    return labels
