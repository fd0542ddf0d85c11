"""The multi-object accuracy reward of VisionReasoner (arXiv 2505.12081), for responses that write boxes.

With N predicted and M target objects, each a box and a point, paired one to one so that the total is largest:

    1/max(N, M) sum over pairs of 1[IoU > 0.5] + 1[mean L1 of the corners < 10 px] + 1[points closer than 30 px]

The constants and the order of things are those of the authors' released reward. Where this one differs:
- A trace has no points: the point of an object is the centre of its box, on both sides. Theirs must lie in the
  predicted box, which a centre always does.
- Their images are 840 x 840 pixels. Here the stored image is stretched to a square of that side before the two
  distances are measured, so that 10 px and 30 px mean what they mean there; IoU does not change.
- Boxes are half open; theirs include the last pixel, which adds 1 to every side.
- Theirs ignores objects after the 120th and gives 0 to a response with one broken item or none. Here every box counts,
  malformed ones are dropped, and a sample without a target box is not applicable.
- Theirs reads the answer alone. Here the boxes of the whole response count, as in the response format of TreeVGR.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rewards.matching import one_to_one
from rewards.score import Score
from vgr_rl.grounding.boxes import iou_matrix
from vgr_rl.grounding.frames import Box, Size
from vgr_rl.grounding.sample import Sample
from vgr_rl.grounding.trace import Trace

_NUMPY_PAIRS = 128


@dataclass(frozen=True, slots=True)
class MultiObject:
    """Grade predicted boxes against target boxes, matched one to one; the value is in [0, 3].

    The value is the sum of the parts `multi_object_iou`, `multi_object_l1` and `multi_object_point`, each in [0, 1]:
    how many pairs pass that test, of max(N, M). A response without a box scores 0; a sample without a target box is
    not applicable. Targets of both roles count; those without a box are skipped. A box with a coordinate that is not
    finite passes no test.

    Args:
        min_iou: the IoU of a pair has to be above this.
        max_l1: the mean distance of the four coordinates has to be below this, pixels of the stretched image.
        max_point_distance: the distance of the centres has to be below this, pixels of the stretched image.
        stretched_side: side of the square that the image is stretched to before distances are measured, pixels.

    Raises:
        ValueError: when a parameter is out of range.

    Example:
        >>> from vgr_rl.grounding import ImageGeometry, Size, Target, parse_trace
        >>> size = Size(84, 84)
        >>> sample = Sample("1", "doc", "Where?", "", "none", (), (Target((0.0, 0.0, 20.0, 20.0)),), size)
        >>> trace = parse_trace("<box>[0,0,20,16]</box></think>", ImageGeometry(size, size), "model_px")
        >>> MultiObject()(trace, sample).parts
        {'multi_object_iou': 1.0, 'multi_object_l1': 0.0, 'multi_object_point': 1.0}
    """

    min_iou: float = 0.5
    max_l1: float = 10.0
    max_point_distance: float = 30.0
    stretched_side: float = 840.0

    def __post_init__(self) -> None:
        if not 0 <= self.min_iou <= 1:
            raise ValueError(f"multi_object.min_iou={self.min_iou} but it must be between 0 and 1")
        for name in ("max_l1", "max_point_distance", "stretched_side"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"multi_object.{name}={value} but it must be above 0")

    def __call__(self, trace: Trace, sample: Sample) -> Score:
        """Grade one response."""
        boxes = sample.target_boxes
        if not boxes:
            return Score.not_applicable("the sample has no target box")
        targets = self._stretched(boxes, sample.image_size)
        preds = self._stretched([box.box_orig_px for box in trace.boxes], sample.image_size)
        ious = iou_matrix(preds, targets)
        pairs = one_to_one(self._credits(preds, targets, ious))
        passed = [self._tests(preds[row], targets[column], ious[row][column]) for row, column in pairs]
        objects = max(len(preds), len(targets))
        shares = [sum(test) / objects for test in zip(*passed, strict=True)] or [0.0, 0.0, 0.0]
        names = ("multi_object_iou", "multi_object_l1", "multi_object_point")
        return Score(sum(shares), dict(zip(names, shares, strict=True)))

    def _stretched(self, boxes: Sequence[Box], image_size: Size) -> list[Box]:
        x, y = self.stretched_side / image_size[0], self.stretched_side / image_size[1]
        return [(x1 * x, y1 * y, x2 * x, y2 * y) for x1, y1, x2, y2 in boxes]

    def _tests(self, pred: Box, target: Box, overlap: float) -> tuple[bool, bool, bool]:
        left, top, right, bottom = pred[0] - target[0], pred[1] - target[1], pred[2] - target[2], pred[3] - target[3]
        return (
            overlap > self.min_iou,
            (abs(left) + abs(top) + abs(right) + abs(bottom)) / 4 < self.max_l1,
            math.hypot(left + right, top + bottom) / 2 < self.max_point_distance,
        )

    def _credits(self, preds: list[Box], targets: list[Box], ious: list[list[float]]) -> list[list[int]]:
        """Return how many of the three tests each pair passes, `[len(preds)][len(targets)]`."""
        if len(preds) * len(targets) <= _NUMPY_PAIRS:
            return [
                [sum(self._tests(pred, target, overlap)) for target, overlap in zip(targets, row, strict=True)]
                for pred, row in zip(preds, ious, strict=True)
            ]
        import numpy as np

        with np.errstate(invalid="ignore", over="ignore"):  # coordinates that are not finite, or huge
            apart = np.asarray(preds)[:, None] - np.asarray(targets)
            l1 = np.abs(apart).mean(axis=2)
            point_distance = np.hypot(apart[..., 0] + apart[..., 2], apart[..., 1] + apart[..., 3]) / 2
        passed = (np.asarray(ious) > self.min_iou, l1 < self.max_l1, point_distance < self.max_point_distance)
        matrix: list[list[int]] = np.sum(passed, axis=0).tolist()
        return matrix
