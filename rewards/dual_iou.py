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
from dataclasses import dataclass, replace
from typing import Literal

from rewards.matching import Matching, partner_overlaps
from rewards.score import Score
from vgr_rl.grounding.boxes import best_iou, earlier_iou, giou_matrix, iou_matrix
from vgr_rl.grounding.frames import Box
from vgr_rl.grounding.sample import Sample
from vgr_rl.grounding.trace import Trace

Kind = Literal["iou", "giou"]
Malformed = Literal["drop", "count"]


@dataclass(frozen=True, slots=True)
class DualIoU:
    """Grade the boxes of a response against the target boxes of its sample, in pixels of the stored image.

    The value is the mean of the terms that are switched on, less the duplicate penalty: in [0, 1] without a penalty,
    in (-duplicate_penalty, 1] with one. Parts `recall_iou`, `precision_iou`, `dual_iou` and `boxes` (N) are measured
    whatever is switched on; `duplicate_rate` is measured when it is punished. A response without a box scores 0; a
    sample without a target box is not applicable. Targets of both roles count; those without a box are skipped. A
    target box that is reversed, or whose coordinates are not finite, overlaps nothing.

    Where the generalised IoU is used, what has no partner (everything, in a response without a box) is worth -1 instead
    of 0, so that no box is never better than a wrong one, and both bounds of the value start at -1 instead of 0.

    Args:
        recall: whether the recall term counts.
        precision: whether the precision term counts.
        matching: "best" lets every box take its best partner (the paper); "hungarian" pairs one to one so that the
            total IoU is largest, and unpaired boxes are worth what has no partner.
        malformed: "drop" ignores malformed boxes (the paper); "count" adds them to N with IoU 0.
        duplicate_penalty: subtracted in full if every box were a near copy of an earlier one; not in the paper.
        duplicate_iou: two boxes above this IoU are near copies.
        kind: "iou" (the paper), or "giou", which also tells how far apart boxes are that do not overlap.
        threshold: an IoU below it counts as no overlap; 0 keeps all.
        schedule: thresholds over the training as `(progress, threshold)`, each from that share of the training on;
            the first from 0. `at` picks one. V-Triune (arXiv 2505.18129) raises it to 0.85, 0.95 and 0.99.

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
    kind: Kind = "iou"
    threshold: float = 0.0
    schedule: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "schedule", _checked_schedule(self.schedule))
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
        if self.kind not in ("iou", "giou"):
            raise ValueError(f"dual_iou.kind={self.kind!r} but expected iou or giou")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"dual_iou.threshold={self.threshold} but it must be between 0 and 1")

    def __call__(self, trace: Trace, sample: Sample) -> Score:
        """Grade one response."""
        targets = sample.target_boxes
        if not targets:
            return Score.not_applicable("the sample has no target box")
        preds = [box.box_orig_px for box in trace.boxes]
        count = len(preds) + (trace.malformed if self.malformed == "count" else 0)
        recall, precision = self._terms(preds, targets, count)
        both = (recall + precision) / 2
        value = both if self.recall and self.precision else recall if self.recall else precision
        parts = {"recall_iou": recall, "precision_iou": precision, "dual_iou": both, "boxes": float(len(preds))}
        if self.duplicate_penalty > 0:
            parts["duplicate_rate"] = duplicate_rate(preds, self.duplicate_iou)
            value -= self.duplicate_penalty * parts["duplicate_rate"]
        return Score(value, parts)

    def at(self, progress: float) -> "DualIoU":
        """Return this reward with the threshold that its schedule has at one moment; itself without a schedule.

        Args:
            progress: share of the training that is done, in [0, 1].

        Raises:
            ValueError: when `progress` is out of range.

        Example:
            >>> reward = DualIoU(schedule=((0.0, 0.85), (0.1, 0.95), (0.25, 0.99)))
            >>> reward.at(0.0).threshold, reward.at(0.1).threshold, reward.at(1.0).threshold
            (0.85, 0.95, 0.99)
        """
        if not 0 <= progress <= 1:
            raise ValueError(f"dual_iou: progress={progress} but the share of the training done is between 0 and 1")
        begun = [threshold for start, threshold in self.schedule if start <= progress]
        return replace(self, threshold=begun[-1]) if begun else self

    def _terms(self, preds: list[Box], targets: list[Box], count: int) -> tuple[float, float]:
        """Return recall and precision; `count` is N."""
        unmatched = 0.0 if self.kind == "iou" else -1.0
        if not preds:
            return unmatched, unmatched
        if self.kind == "iou" and self.matching == "best":
            of_preds, of_targets = best_iou(preds, targets)
        else:
            matrix = iou_matrix(preds, targets) if self.kind == "iou" else giou_matrix(preds, targets)
            of_preds, of_targets = partner_overlaps(matrix, len(targets), self.matching, unmatched)
        if self.threshold > 0:
            of_preds = [overlap if overlap >= self.threshold else unmatched for overlap in of_preds]
            of_targets = [overlap if overlap >= self.threshold else unmatched for overlap in of_targets]
        precision = (sum(of_preds) + unmatched * (count - len(preds))) / count
        return sum(of_targets) / len(targets), precision


def duplicate_rate(boxes: Sequence[Box], threshold: float) -> float:
    """Return the share of boxes whose IoU with an earlier box is above `threshold`; 0 without boxes."""
    if not boxes:
        return 0.0
    return sum(overlap > threshold for overlap in earlier_iou(boxes)) / len(boxes)


def _checked_schedule(schedule: Sequence[Sequence[float]]) -> tuple[tuple[float, float], ...]:
    where = f"dual_iou.schedule={schedule!r}"
    if any(len(entry) != 2 for entry in schedule):
        raise ValueError(f"{where} but each entry must be (progress, threshold)")
    pairs = tuple((float(start), float(threshold)) for start, threshold in schedule)
    starts = [start for start, _ in pairs]
    if not all(0 <= number <= 1 for pair in pairs for number in pair):
        raise ValueError(f"{where} but progress and threshold must be between 0 and 1")
    if pairs and (starts[0] != 0 or sorted(set(starts)) != starts):
        raise ValueError(f"{where} but progress must start at 0 and increase")
    return pairs
