"""The evidence reward of TreeVGR (arXiv 2507.07999, section on the dual IoU reward).

With M target boxes g and N predicted boxes b, in one frame:

    recall    = 1/M sum_k max_i IoU(b_i, g_k)
    precision = 1/N sum_i max_k IoU(b_i, g_k)
    dual IoU  = (recall + precision) / 2

Best matching leaves two holes that the paper's formula has too: copies of one good box cost no precision, and one
large box can serve several targets. `matching="hungarian"` and `duplicate_penalty` close them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rewards.score import Score
from vgr_rl.grounding.boxes import earlier_iou, iou_matrix
from vgr_rl.grounding.frames import Box
from vgr_rl.grounding.sample import Sample
from vgr_rl.grounding.trace import Trace

Matching = Literal["best", "hungarian"]
Malformed = Literal["drop", "count"]


@dataclass(frozen=True, slots=True)
class DualIoU:
    """Grade the boxes of a response against the target boxes of its sample, in pixels of the stored image.

    The value is the mean of the terms that are switched on, less the duplicate penalty: in [0, 1] without a penalty,
    in (-duplicate_penalty, 1] with one. Parts `recall_iou`, `precision_iou`, `dual_iou` and `boxes` (N) are measured
    whatever is switched on; `duplicate_rate` is measured when it is punished. A response without a box scores 0; a
    sample without a target box is not applicable. Targets of both roles count; those without a box are skipped.

    Args:
        recall: whether the recall term counts.
        precision: whether the precision term counts.
        matching: "best" lets every box take its best partner (the paper); "hungarian" pairs one to one so that the
            total IoU is largest, and unpaired boxes have IoU 0.
        malformed: "drop" ignores malformed boxes (the paper); "count" adds them to N with IoU 0.
        duplicate_penalty: subtracted in full if every box were a near copy of an earlier one; not in the paper.
        duplicate_iou: two boxes above this IoU are near copies.

    Raises:
        ValueError: when a parameter is out of range or both terms are off.

    Example:
        >>> from vgr_rl.grounding import ImageGeometry, Size, Target, parse_trace
        >>> size = Size(64, 64)
        >>> sample = Sample("1", "doc", "Where?", "", "none", (), (Target((0.0, 0.0, 20.0, 20.0)),), size)
        >>> trace = parse_trace("<box>[0,0,20,10]</box></think>", ImageGeometry(size, size), "model_px")
        >>> DualIoU()(trace, sample).value
        0.5
    """

    recall: bool = True
    precision: bool = True
    matching: Matching = "best"
    malformed: Malformed = "drop"
    duplicate_penalty: float = 0.0
    duplicate_iou: float = 0.9

    def __post_init__(self) -> None:
        if not (self.recall or self.precision):
            raise ValueError("dual_iou.recall=False and dual_iou.precision=False but at least one must be on")
        if self.matching not in ("best", "hungarian"):
            raise ValueError(f"dual_iou.matching={self.matching!r} but expected best or hungarian")
        if self.malformed not in ("drop", "count"):
            raise ValueError(f"dual_iou.malformed={self.malformed!r} but expected drop or count")
        if not (math.isfinite(self.duplicate_penalty) and self.duplicate_penalty >= 0):
            raise ValueError(f"dual_iou.duplicate_penalty={self.duplicate_penalty} but it must be 0 or more")
        if not 0 <= self.duplicate_iou <= 1:
            raise ValueError(f"dual_iou.duplicate_iou={self.duplicate_iou} but it must be between 0 and 1")

    def __call__(self, trace: Trace, sample: Sample) -> Score:
        """Grade one response."""
        targets = [target.box_orig_px for target in sample.targets if target.box_orig_px is not None]
        if not targets:
            return Score.not_applicable("the sample has no target box")
        preds = [box.box_orig_px for box in trace.boxes]
        count = len(preds) + (trace.malformed if self.malformed == "count" else 0)
        recall, precision = self._terms(preds, targets, count)
        parts = {
            "recall_iou": recall,
            "precision_iou": precision,
            "dual_iou": (recall + precision) / 2,
            "boxes": float(len(preds)),
        }
        terms = [term for term, on in ((recall, self.recall), (precision, self.precision)) if on]
        value = sum(terms) / len(terms)
        if self.duplicate_penalty > 0:
            parts["duplicate_rate"] = duplicate_rate(preds, self.duplicate_iou)
            value -= self.duplicate_penalty * parts["duplicate_rate"]
        return Score(value, parts)

    def _terms(self, preds: list[Box], targets: list[Box], count: int) -> tuple[float, float]:
        if not preds:
            return 0.0, 0.0
        ious = iou_matrix(preds, targets)
        if self.matching == "hungarian":
            total = _largest_one_to_one_sum(ious)
            return total / len(targets), total / count
        best_of_targets = [max(column) for column in zip(*ious, strict=True)]
        return sum(best_of_targets) / len(targets), sum(map(max, ious)) / count


def duplicate_rate(boxes: Sequence[Box], threshold: float) -> float:
    """Return the share of boxes whose IoU with an earlier box is above `threshold`; 0 without boxes."""
    if not boxes:
        return 0.0
    return sum(overlap > threshold for overlap in earlier_iou(boxes)) / len(boxes)


def _largest_one_to_one_sum(ious: list[list[float]]) -> float:
    if len(ious) == 1 or len(ious[0]) == 1:
        return max(map(max, ious))
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(ious, maximize=True)
    return float(sum(ious[row][column] for row, column in zip(rows, columns, strict=True)))
