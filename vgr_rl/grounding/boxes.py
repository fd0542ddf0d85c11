"""Areas and overlaps of boxes in one common frame.

Any four numbers may be a box. One that is empty or reversed, has a coordinate that is not finite, or is too large for
its area to be a float overlaps nothing.

Plain Python: at the handful of boxes a response has, this beats an array library. What compares many boxes turns to
numpy from a few hundred pairs.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vgr_rl.grounding.frames import Box

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_NUMPY_PAIRS = 512
_ROWS_AT_ONCE = 64


def area(box: Box) -> float:
    """Return the area of a box; 0 when it is empty or reversed."""
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def intersection(a: Box, b: Box) -> float:
    """Return the area that two boxes share."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0.0


def iou(a: Box, b: Box) -> float:
    """Return intersection over union, in [0, 1]; boxes that only touch have 0."""
    shared = intersection(a, b)
    union = area(a) + area(b) - shared
    return shared / union if shared > 0 and union > 0 else 0.0


def giou(a: Box, b: Box) -> float:
    """Return the generalised IoU, in [-1, 1]: IoU less the share of the common hull that neither box covers.

    It is -1 where there is no union or no finite hull.

    Source: Rezatofighi et al., "Generalized Intersection over Union", 2019.
    """
    shared = intersection(a, b)
    union = area(a) + area(b) - shared
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    if not (union > 0 and hull < math.inf):
        return -1.0
    return shared / union - max(hull - union, 0.0) / hull


def iou_matrix(preds: Sequence[Box], targets: Sequence[Box]) -> list[list[float]]:
    """Return IoU of every pair as `[len(preds)][len(targets)]`."""
    if len(preds) * len(targets) > _NUMPY_PAIRS:
        matrix: list[list[float]] = _iou_array(_columns(preds)[..., None], _columns(targets)).tolist()
        return matrix
    return [[iou(pred, target) for target in targets] for pred in preds]


def giou_matrix(preds: Sequence[Box], targets: Sequence[Box]) -> list[list[float]]:
    """Return the generalised IoU of every pair as `[len(preds)][len(targets)]`."""
    if len(preds) * len(targets) > _NUMPY_PAIRS:
        matrix: list[list[float]] = _giou_array(_columns(preds)[..., None], _columns(targets)).tolist()
        return matrix
    return [[giou(pred, target) for target in targets] for pred in preds]


def best_iou(preds: Sequence[Box], targets: Sequence[Box]) -> tuple[list[float], list[float]]:
    """Return the best IoU of each prediction with any target, and of each target with any prediction.

    The same as the maxima of the rows and columns of `iou_matrix`, 0 where the other side is empty; written out because
    a reward spends its time here. Most pairs lie apart and cost a comparison or two.

    Example:
        >>> best_iou([(0, 0, 4, 4), (8, 8, 9, 9)], [(0, 0, 4, 2)])
        ([0.5, 0.0], [0.5])
    """
    if len(preds) * len(targets) > _NUMPY_PAIRS:
        matrix = _iou_array(_columns(preds)[..., None], _columns(targets))
        return matrix.max(axis=1).tolist(), matrix.max(axis=0).tolist()
    best_of_preds = []
    best_of_targets = [0.0] * len(targets)
    for ax1, ay1, ax2, ay2 in preds:
        best = 0.0
        for index, (bx1, by1, bx2, by2) in enumerate(targets):
            if ax1 < bx2 and bx1 < ax2 and ay1 < by2 and by1 < ay2:
                width = (ax2 if ax2 < bx2 else bx2) - (ax1 if ax1 > bx1 else bx1)
                height = (ay2 if ay2 < by2 else by2) - (ay1 if ay1 > by1 else by1)
                union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - width * height
                if width > 0 and height > 0 and union > 0:
                    overlap = width * height / union
                    if overlap > best:
                        best = overlap
                    if overlap > best_of_targets[index]:
                        best_of_targets[index] = overlap
        best_of_preds.append(best)
    return best_of_preds, best_of_targets


def earlier_iou(boxes: Sequence[Box]) -> list[float]:
    """Return for each box its largest IoU with a box before it; 0 for the first."""
    if len(boxes) * len(boxes) <= 2 * _NUMPY_PAIRS:
        return [max((iou(box, other) for other in boxes[:index]), default=0.0) for index, box in enumerate(boxes)]
    import numpy as np

    columns = _columns(boxes)
    best: list[float] = []
    for start in range(0, len(boxes), _ROWS_AT_ONCE):
        stop = min(start + _ROWS_AT_ONCE, len(boxes))
        ious = _iou_array(columns[:, start:stop, None], columns[:, :stop])
        best += np.tril(ious, start - 1).max(axis=1).tolist()
    return best


def _columns(boxes: Sequence[Box]) -> "NDArray[np.float64]":
    """Return boxes as `[4, len(boxes)]`."""
    import numpy as np

    return np.array(list(zip(*boxes, strict=True)), dtype=np.float64)


def _iou_array(a: "NDArray[np.float64]", b: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """Return the IoU of boxes `[4, ...]` and `[4, ...]`, broadcast against each other."""
    import numpy as np

    shared, union = _shared_and_union(a, b)
    ious: NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(shared), where=(shared > 0) & (union > 0))
    return ious


def _giou_array(a: "NDArray[np.float64]", b: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """Return the generalised IoU of boxes `[4, ...]` and `[4, ...]`, broadcast against each other."""
    import numpy as np

    shared, union = _shared_and_union(a, b)
    with np.errstate(invalid="ignore", over="ignore"):
        hull = (np.maximum(a[2], b[2]) - np.minimum(a[0], b[0])) * (np.maximum(a[3], b[3]) - np.minimum(a[1], b[1]))
        measurable = (union > 0) & (hull < np.inf)
        missed = np.maximum(hull - union, 0.0)
    covered = np.divide(shared, union, out=np.zeros_like(shared), where=measurable)
    gious: NDArray[np.float64] = covered - np.divide(missed, hull, out=np.ones_like(shared), where=measurable)
    return gious


def _shared_and_union(
    a: "NDArray[np.float64]", b: "NDArray[np.float64]"
) -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
    import numpy as np

    with np.errstate(invalid="ignore", over="ignore"):  # coordinates that are not finite, or huge
        width = np.minimum(a[2], b[2]) - np.maximum(a[0], b[0])
        height = np.minimum(a[3], b[3]) - np.maximum(a[1], b[1])
        area_a = np.maximum(a[2] - a[0], 0.0) * np.maximum(a[3] - a[1], 0.0)
        area_b = np.maximum(b[2] - b[0], 0.0) * np.maximum(b[3] - b[1], 0.0)
        shared = np.where((width > 0) & (height > 0), width * height, 0.0)
        return shared, area_a + area_b - shared
