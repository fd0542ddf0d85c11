"""The detection reward of VLM-R1 (arXiv 2504.07615): COCO's average precision, less for too many boxes.

With N predicted and M target boxes:

    reward = mAP * min(1, M / N)

mAP is the mean over the IoU thresholds 0.5, 0.55 … 0.95 of the area under the interpolated precision-recall curve at
101 recalls, as pycocotools' `COCOeval` computes it. Predictions have no confidence and are ranked in order of
appearance, which is what equal scores lead to in the authors' released reward. Where this one differs:
- A traced box has no label: all boxes are of one class, and mAP is the AP of that class.
- Theirs reads the answer alone and scores 1 where neither side has a box. Here the boxes of the whole response count,
  malformed ones are dropped, and a sample without a target box is not applicable.
- COCO ignores unmatched boxes larger than 100,000 x 100,000 pixels; here they count as false.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from rewards.score import Score
from vgr_rl.grounding.boxes import iou_matrix
from vgr_rl.grounding.sample import Sample
from vgr_rl.grounding.trace import Trace

_IOU_THRESHOLDS = tuple(twentieths / 20 for twentieths in range(10, 20))
_RECALLS = tuple(hundredths * 0.01 for hundredths in range(101))  # COCO's floats: 57 * 0.01 is a little above 57/100

_Candidates = list[tuple[float, int]]
"""The targets that one prediction overlaps enough, as (IoU, index), best first."""


@dataclass(frozen=True, slots=True)
class MeanAP:
    """Grade predicted boxes as a detector is graded; the value is in [0, 1].

    Part `mean_ap` is COCO's AP, part `ap50` the AP at IoU 0.5, part `count_factor` is min(1, M/N), and the value is
    `mean_ap` times `count_factor`. A response without a box scores 0; a sample without a target box is not applicable.
    Targets of both roles count; those without a box are skipped.

    Args:
        shrink_by_count: whether the factor counts: the authors' odLength reward; without it, their plain mAP, which
            boxes after the last true one never lower.
        max_boxes: boxes after so many count in N and nowhere else, as in COCO.

    Raises:
        ValueError: when `max_boxes` is not positive.

    Example:
        >>> from vgr_rl.grounding import ImageGeometry, Size, Target, parse_trace
        >>> size = Size(64, 64)
        >>> sample = Sample("1", "doc", "Where?", "", "none", (), (Target((0.0, 0.0, 20.0, 20.0)),), size)
        >>> boxes = "<box>[0,0,20,15]</box> <box>[30,30,40,40]</box>"
        >>> MeanAP()(parse_trace(boxes, ImageGeometry(size, size), "model_px"), sample).parts
        {'mean_ap': 0.6, 'ap50': 1.0, 'count_factor': 0.5}
    """

    shrink_by_count: bool = True
    max_boxes: int = 100

    def __post_init__(self) -> None:
        if self.max_boxes < 1:
            raise ValueError(f"mean_ap.max_boxes={self.max_boxes} but it must be at least 1")

    def __call__(self, trace: Trace, sample: Sample) -> Score:
        """Grade one response."""
        targets = sample.target_boxes
        if not targets:
            return Score.not_applicable("the sample has no target box")
        preds = [box.box_orig_px for box in trace.boxes[: self.max_boxes]]
        candidates = [_candidates(row) for row in iou_matrix(preds, targets)]
        precisions = [
            _average_precision(_hits(candidates, len(targets), threshold), len(targets))
            for threshold in _IOU_THRESHOLDS
        ]
        mean_ap = sum(precisions) / len(precisions)
        count_factor = min(1.0, len(targets) / max(len(trace.boxes), 1))
        value = mean_ap * count_factor if self.shrink_by_count else mean_ap
        return Score(value, {"mean_ap": mean_ap, "ap50": precisions[0], "count_factor": count_factor})


def _candidates(ious: Sequence[float]) -> _Candidates:
    """Return the targets above the lowest threshold; of equal ones COCO takes the last first."""
    near = ((overlap, index) for index, overlap in enumerate(ious) if overlap >= _IOU_THRESHOLDS[0])
    return sorted(near, reverse=True)


def _hits(candidates: Sequence[_Candidates], targets: int, threshold: float) -> list[int]:
    """Return the ranks (from 1) of the true predictions: in order, each takes the best target that is left."""
    taken: set[int] = set()
    ranks = []
    for rank, near in enumerate(candidates, start=1):
        if len(taken) == targets:
            break
        for overlap, index in near:
            if overlap < threshold:
                break
            if index not in taken:
                taken.add(index)
                ranks.append(rank)
                break
    return ranks


def _average_precision(ranks: Sequence[int], targets: int) -> float:
    """Return the mean over 101 recalls of the best precision at that recall or a higher one.

    Args:
        ranks: ranks (from 1) of the true predictions, ascending.
        targets: number of targets.
    """
    weights = _recalls_reached(targets)
    best = total = 0.0
    for hits in range(len(ranks), 0, -1):
        best = max(best, hits / ranks[hits - 1])
        total += weights[hits - 1] * best
    return total / len(_RECALLS)


@lru_cache(maxsize=256)
def _recalls_reached(targets: int) -> tuple[int, ...]:
    """Return how many of the 101 recalls the first true prediction reaches, how many more the second, and so on."""
    weights = [0] * targets
    recalls = [hits / targets for hits in range(1, targets + 1)]
    for recall in _RECALLS:
        weights[bisect_left(recalls, recall)] += 1
    return tuple(weights)
