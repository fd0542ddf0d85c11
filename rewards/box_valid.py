"""The share of a response's boxes that could be a box of its image; ours, from no paper.

Wrong frames, wrong sizes and broken syntax all show here long before an IoU tells them apart from plain misses.
"""

import math
from dataclasses import dataclass

from rewards.score import Score
from vgr_rl.grounding.frames import Box, Size
from vgr_rl.grounding.sample import Sample
from vgr_rl.grounding.trace import Trace

_ROUNDING = 1e-9  # a frame's far edge may be mapped a rounding error outside the image


@dataclass(frozen=True, slots=True)
class BoxValid:
    """Grade the boxes of a response without looking at the targets; the value is in [0, 1].

    A box is valid when it lies inside the image and has two sides of some length. Malformed boxes are boxes that are
    not valid. Part `box_valid` is the value, part `malformed_boxes` the number of malformed ones. Every sample is
    applicable: whether a response points at anything is its own doing.

    Args:
        tolerance: how far a box may leave the image, as a share of the image's side; above 0 because a model may
            speak pixels of a resize that differs from the stored image by its rounding.
        min_side_px: shortest side of a valid box, pixels of the stored image.
        without_boxes: value of a response that writes no box at all; 0 gives silence nothing, 1 suits data on which
            boxes are optional.

    Raises:
        ValueError: when a parameter is out of range.

    Example:
        >>> from vgr_rl.grounding import ImageGeometry, Size, parse_trace
        >>> size = Size(64, 64)
        >>> sample = Sample("1", "doc", "Where?", "", "none", (), (), size)
        >>> boxes = "<box>[0,0,20,10]</box> <box>[0,0,900,900]</box> <box>here</box> <box>[8,8,64,64]</box>"
        >>> BoxValid()(parse_trace(boxes, ImageGeometry(size, size), "model_px"), sample).value
        0.5
    """

    tolerance: float = 0.01
    min_side_px: float = 1.0
    without_boxes: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("tolerance", self.tolerance), ("min_side_px", self.min_side_px)):
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"box_valid.{name}={value} but it must be 0 or more")
        if not 0 <= self.without_boxes <= 1:
            raise ValueError(f"box_valid.without_boxes={self.without_boxes} but it must be between 0 and 1")

    def __call__(self, trace: Trace, sample: Sample) -> Score:
        """Grade one response."""
        count = len(trace.boxes) + trace.malformed
        valid = sum(self._valid(box.box_orig_px, sample.image_size) for box in trace.boxes)
        value = valid / count if count else self.without_boxes
        return Score(value, {"box_valid": value, "malformed_boxes": float(trace.malformed)})

    def _valid(self, box: Box, image_size: Size) -> bool:
        x1, y1, x2, y2 = box
        width, height = image_size
        margin = self.tolerance + _ROUNDING
        return (
            x1 >= -margin * width
            and y1 >= -margin * height
            and x2 <= width + margin * width
            and y2 <= height + margin * height
            and min(x2 - x1, y2 - y1) >= self.min_side_px * (1 - _ROUNDING)
        )
