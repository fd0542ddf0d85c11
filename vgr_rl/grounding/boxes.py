"""Areas and overlaps of boxes in one common frame.

Plain Python: at the handful of boxes a response has, this beats an array library. `iou_matrix` turns to numpy when
there are many pairs.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vgr_rl.grounding.frames import Box

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_NUMPY_PAIRS = 512


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
    return shared / (area(a) + area(b) - shared) if shared > 0 else 0.0


def giou(a: Box, b: Box) -> float:
    """Return the generalised IoU, in (-1, 1]: IoU less the share of the common hull that neither box covers.

    Source: Rezatofighi et al., "Generalized Intersection over Union", 2019.
    """
    shared = intersection(a, b)
    union = area(a) + area(b) - shared
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    if union <= 0 or hull <= 0:
        return 0.0
    return shared / union - (hull - union) / hull


def iou_matrix(preds: Sequence[Box], targets: Sequence[Box]) -> list[list[float]]:
    """Return IoU of every pair as `[len(preds)][len(targets)]`."""
    if len(preds) * len(targets) > _NUMPY_PAIRS:
        import numpy as np

        rows, columns = np.asarray(preds, dtype=np.float64), np.asarray(targets, dtype=np.float64)
        matrix: list[list[float]] = _iou_array(rows[:, None], columns).tolist()
        return matrix
    return [_iou_row(pred, targets) for pred in preds]


def _iou_row(a: Box, others: Sequence[Box]) -> list[float]:
    """Return `[iou(a, b) for b in others]`, written out because a reward spends its time here."""
    ax1, ay1, ax2, ay2 = a
    area_a = area(a)
    row = []
    for bx1, by1, bx2, by2 in others:
        width = (ax2 if ax2 < bx2 else bx2) - (ax1 if ax1 > bx1 else bx1)
        height = (ay2 if ay2 < by2 else by2) - (ay1 if ay1 > by1 else by1)
        shared = width * height if width > 0 and height > 0 else 0.0
        row.append(shared / (area_a + (bx2 - bx1) * (by2 - by1) - shared) if shared > 0 else 0.0)
    return row


def earlier_iou(boxes: Sequence[Box]) -> list[float]:
    """Return for each box its largest IoU with a box before it; 0 for the first."""
    if len(boxes) * len(boxes) <= 2 * _NUMPY_PAIRS:
        return [max((iou(box, other) for other in boxes[:index]), default=0.0) for index, box in enumerate(boxes)]
    import numpy as np

    array = np.asarray(boxes, dtype=np.float64)
    return [0.0, *(float(_iou_array(array[i], array[:i]).max()) for i in range(1, len(array)))]


def _iou_array(a: "NDArray[np.float64]", b: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """Return the IoU of boxes `[..., 4]` and `[..., 4]`, broadcast against each other."""
    import numpy as np

    width = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0])
    height = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1])
    shared = np.where((width > 0) & (height > 0), width * height, 0.0)
    area_a = np.maximum(a[..., 2] - a[..., 0], 0.0) * np.maximum(a[..., 3] - a[..., 1], 0.0)
    area_b = np.maximum(b[..., 2] - b[..., 0], 0.0) * np.maximum(b[..., 3] - b[..., 1], 0.0)
    ious: NDArray[np.float64] = np.divide(shared, area_a + area_b - shared, out=np.zeros_like(shared), where=shared > 0)
    return ious
