"""Mask rewards: VRT's matched-mask reward (arXiv 2512.05091, section on RL) and the dual IoU of TreeVGR over masks.

With N predicted and M true masks, paired one to one so that the total IoU is largest, and K pairs above a threshold:

    R_mask = mean IoU of the K pairs - 0.1 * (N + M - 2K), and 0 when K = 0

The masks of a response are `Trace.masks`, one for each `[SEG]`. Both rewards take masks as `check_rle` returns them and
compare run lengths; no mask is decoded to pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from rewards.matching import Matching, one_to_one, partner_overlaps
from rewards.score import Score
from vgr_rl.grounding.frames import Size
from vgr_rl.grounding.masks import Rle, box_rle, resample, rle_iou
from vgr_rl.grounding.sample import Sample
from vgr_rl.grounding.trace import Trace

Roles = Literal["answer", "evidence", "all"]
Source = Literal["masks", "boxes", "box_masks"]


@dataclass(frozen=True, slots=True)
class VRTMaskIoU:
    """Grade the masks of a response's answer against the true answer masks, as VRT does.

    The value is the mean IoU of the K pairs above `threshold`, less `count_penalty` for each mask of either side that
    is in no such pair; 0 without a pair. It is at most 1, and at least min(0, threshold - count_penalty * (N + M - 2)):
    many needless masks around a good one make it negative. Parts: `mask_iou` (the value), `matched_mask_iou` (its
    first term), `matched_masks` (K) and `answer_masks` (N). Masks of the reasoning earn nothing.

    A mask that could not be decoded counts in N. A sample without a true answer mask is not applicable; a response
    with `[SEG]` in its answer but without masks, or with another number of masks than of `[SEG]`, has failed.

    Args:
        threshold: pairs count only above this IoU.
        count_penalty: subtracted for each mask, predicted or true, that is in no pair that counts.
        resolution: masks are compared at this many pixels a side (nearest neighbour; the paper's 256); None compares
            them as they are, which needs predictions at the image's size.

    Raises:
        ValueError: when a parameter is out of range.

    Example:
        >>> from vgr_rl.grounding import ImageGeometry, Size, Target, box_rle, parse_trace
        >>> size = Size(64, 64)
        >>> left, whole = box_rle((0, 0, 48, 64), size), box_rle((0, 0, 64, 64), size)
        >>> target = Target(None, "lake", "answer", mask_rle=whole)
        >>> sample = Sample("1", "doc", "Where is the lake?", "", "none", (), (target,), size)
        >>> response = "so</think><answer>here [SEG]</answer>"
        >>> trace = parse_trace(response, ImageGeometry(size, size), "norm1000", masks=[left])
        >>> VRTMaskIoU()(trace, sample).value
        0.75
    """

    threshold: float = 0.5
    count_penalty: float = 0.1
    resolution: int | None = 256

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < 1:
            raise ValueError(f"mask_iou.threshold={self.threshold} but it must be at least 0 and below 1")
        if not (math.isfinite(self.count_penalty) and self.count_penalty >= 0):
            raise ValueError(f"mask_iou.count_penalty={self.count_penalty} but it must be 0 or more")
        _check_resolution("mask_iou", self.resolution)

    def __call__(self, trace: Trace, sample: Sample) -> Score:
        """Grade one response."""
        targets = _target_masks(sample, "answer")
        if not targets:
            return Score.not_applicable("the sample has no answer target with a mask")
        if (fault := _fault(trace, trace.seg_answer)) is not None:
            return Score.failed(fault)
        preds = _masks_of(trace, trace.seg_answer)
        try:
            ious = _ious(preds, targets, self.resolution)
        except ValueError as error:
            return Score.failed(f"{error} (mask_iou.resolution={self.resolution})")
        kept = [ious[row][column] for row, column in one_to_one(ious) if ious[row][column] > self.threshold]
        matched = sum(kept) / len(kept) if kept else 0.0
        unmatched = len(preds) + len(targets) - 2 * len(kept)
        value = matched - self.count_penalty * unmatched if kept else 0.0
        parts = {
            "mask_iou": value,
            "matched_mask_iou": matched,
            "matched_masks": float(len(kept)),
            "answer_masks": float(len(preds)),
        }
        return Score(value, parts)


@dataclass(frozen=True, slots=True)
class DualMaskIoU:
    """Grade the masks or the boxes of a response against the true masks of its sample by recall and precision.

    The formula is the one of `DualIoU` with the IoU of masks, and the value, in [0, 1], is the mean of the terms that
    are switched on. Parts `mask_recall_iou`, `mask_precision_iou`, `dual_mask_iou` and `pred_masks` (N) are measured
    whatever is switched on. A response without a prediction scores 0, and a mask that could not be decoded has IoU 0.

    A sample without a true mask of `roles` is not applicable; a response with `[SEG]` but without masks, or with
    another number of masks than of `[SEG]`, has failed.

    Args:
        recall: whether the recall term counts.
        precision: whether the precision term counts.
        matching: "best" lets every mask take its best partner; "hungarian" pairs one to one so that the total IoU is
            largest, and unpaired masks have IoU 0.
        roles: which targets count, and which predictions: "answer" takes those inside the answer, "evidence" those
            before it, "all" all of them.
        source: "masks" takes the masks of `[SEG]`, by VRT's rule: one after the answer counts for nothing, and so do
            all unless there is exactly one answer. "boxes" takes the response's boxes as masks, for models that write
            boxes; without an answer all are evidence. "box_masks" takes what a segmenter made of them; a response with
            boxes for which it made none has failed.
        resolution: masks are compared at this many pixels a side (nearest neighbour); None compares them as they are,
            which needs predictions at the image's size.

    Raises:
        ValueError: when a parameter is out of range or both terms are off.

    Example:
        >>> from vgr_rl.grounding import ImageGeometry, Size, Target, box_rle, parse_trace
        >>> size = Size(64, 64)
        >>> target = Target(None, "lake", mask_rle=box_rle((0, 0, 20, 20), size))
        >>> sample = Sample("1", "doc", "Where?", "", "none", (), (target,), size)
        >>> trace = parse_trace("<box>[0,0,20,10]</box></think>", ImageGeometry(size, size), "model_px")
        >>> DualMaskIoU(source="boxes")(trace, sample).value
        0.5
    """

    recall: bool = True
    precision: bool = True
    matching: Matching = "best"
    roles: Roles = "all"
    source: Source = "masks"
    resolution: int | None = None

    def __post_init__(self) -> None:
        if not (self.recall or self.precision):
            raise ValueError("dual_mask_iou.recall=False and dual_mask_iou.precision=False but one must be on")
        if self.matching not in ("best", "hungarian"):
            raise ValueError(f"dual_mask_iou.matching={self.matching!r} but expected best or hungarian")
        if self.roles not in ("answer", "evidence", "all"):
            raise ValueError(f"dual_mask_iou.roles={self.roles!r} but expected answer, evidence or all")
        if self.source not in get_args(Source):
            raise ValueError(f"dual_mask_iou.source={self.source!r} but expected masks, boxes or box_masks")
        _check_resolution("dual_mask_iou", self.resolution)

    def __call__(self, trace: Trace, sample: Sample) -> Score:
        """Grade one response."""
        targets = _target_masks(sample, self.roles)
        if not targets:
            of_role = "" if self.roles == "all" else f" {self.roles}"
            return Score.not_applicable(f"the sample has no{of_role} target with a mask")
        preds: Sequence[Rle | None]
        if self.source == "boxes":
            preds = [box_rle(trace.boxes[place].box_orig_px, sample.image_size) for place in _boxes(trace, self.roles)]
        elif self.source == "box_masks":
            if trace.box_masks is None and trace.boxes:
                return Score.failed(f"the response has {len(trace.boxes)} boxes but no masks were made of them")
            preds = [(trace.box_masks or ())[place] for place in _boxes(trace, self.roles)]
        else:
            segs = _segs(trace, self.roles)
            if (fault := _fault(trace, segs)) is not None:
                return Score.failed(fault)
            preds = _masks_of(trace, segs)
        try:
            ious = _ious(preds, targets, self.resolution)
        except ValueError as error:
            return Score.failed(f"{error} (dual_mask_iou.resolution={self.resolution})")
        of_preds, of_targets = partner_overlaps(ious, len(targets), self.matching)
        recall, precision = sum(of_targets) / len(targets), sum(of_preds) / max(len(preds), 1)
        terms = [term for term, on in ((recall, self.recall), (precision, self.precision)) if on]
        parts = {
            "mask_recall_iou": recall,
            "mask_precision_iou": precision,
            "dual_mask_iou": (recall + precision) / 2,
            "pred_masks": float(len(preds)),
        }
        return Score(sum(terms) / len(terms), parts)


def _check_resolution(name: str, resolution: int | None) -> None:
    if resolution is not None and resolution < 1:
        raise ValueError(f"{name}.resolution={resolution} but it must be 1 or more, or null for the masks' own size")


def _target_masks(sample: Sample, roles: Roles) -> list[Rle]:
    return [
        target.mask_rle for target in sample.targets if target.mask_rle is not None and roles in ("all", target.role)
    ]


def _segs(trace: Trace, roles: Roles) -> tuple[int, ...]:
    reasoning = trace.seg_reasoning if roles in ("evidence", "all") else ()
    return reasoning + (trace.seg_answer if roles in ("answer", "all") else ())


def _fault(trace: Trace, segs: Sequence[int]) -> str | None:
    """Say why the masks of these `[SEG]` cannot be graded; None when they can."""
    if trace.masks is None:
        return f"the response has {trace.segs} [SEG] but no masks were made for it" if segs else None
    if len(trace.masks) != trace.segs:
        return f"the response has {trace.segs} [SEG] but came with {len(trace.masks)} masks; one for each is needed"
    return None


def _masks_of(trace: Trace, segs: Sequence[int]) -> list[Rle | None]:
    return [] if trace.masks is None else [trace.masks[seg] for seg in segs]


def _boxes(trace: Trace, roles: Roles) -> list[int]:
    """Return which boxes stand where predictions of these roles do."""
    start, end = trace.answer_span or (len(trace.text), len(trace.text))
    places = [box.span[0] for box in trace.boxes]
    inside = {"answer": range(start, end), "evidence": range(start), "all": range(len(trace.text))}[roles]
    return [index for index, place in enumerate(places) if place in inside]


def _ious(preds: Sequence[Rle | None], targets: Sequence[Rle], resolution: int | None) -> list[list[float]]:
    """Return the IoU of every pair; a mask that could not be decoded has 0 with every target.

    Raises:
        ValueError: when the masks are compared as they are but differ in size.
    """
    decoded = [pred for pred in preds if pred is not None]
    if resolution is not None:
        size = Size(resolution, resolution)
        decoded, targets = [resample(pred, size) for pred in decoded], [resample(target, size) for target in targets]
    rows = iter(rle_iou(decoded, targets))
    return [[0.0] * len(targets) if pred is None else next(rows) for pred in preds]
