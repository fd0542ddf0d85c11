"""The mask rewards against their formulas on bits, with all pairings tried."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards import Composer, Score
from rewards.mask_iou import DualMaskIoU, VRTMaskIoU
from vgr_rl.grounding import Box, ImageGeometry, Role, Sample, Size, Target, Trace, box_rle, parse_trace, rle_iou
from vgr_rl.grounding.masks import Rle, encode, resample

SIZE = Size(4, 3)
GEOMETRY = ImageGeometry(SIZE, SIZE)
few_masks = st.lists(st.integers(0, 2**12 - 1), min_size=1, max_size=4)


def pixels(bits: int) -> np.ndarray:
    """Twelve pixels from twelve bits."""
    return (bits >> np.arange(12) & 1).astype(bool).reshape(SIZE.height, SIZE.width)


def sample_of(targets: Sequence[Rle | None], role: Role = "answer", size: Size = SIZE) -> Sample:
    return Sample("7", "test", "Where?", "", "none", (), tuple(Target(None, "", role, rle) for rle in targets), size)


def answered(preds: Sequence[Rle | None] | None, segs: int | None = None, thought: int = 0) -> Trace:
    """A response with `thought` [SEG] before its answer and the others inside."""
    segs = len(preds or ()) if segs is None else segs
    response = f"so {'[SEG]' * thought}</think><answer>here {'[SEG]' * (segs - thought)}</answer>"
    return parse_trace(response, GEOMETRY, "model_px", masks=preds)


def rles(masks: list[int]) -> list[Rle]:
    return encode(np.stack(list(map(pixels, masks))))


def bits_iou(a: int, b: int) -> float:
    return (a & b).bit_count() / max((a | b).bit_count(), 1)


def best_pairings(preds: list[int], targets: list[int]) -> list[list[float]]:
    """The IoUs of the pairs of every one-to-one pairing whose total is the largest."""
    short, long = sorted((preds, targets), key=len)
    pairings = [list(map(bits_iou, short, chosen)) for chosen in permutations(long, len(short))]
    largest = max(map(sum, pairings))
    return [pairing for pairing in pairings if sum(pairing) > largest - 1e-9]


@given(few_masks, few_masks)
def test_dual_iou_is_the_formula_on_pixels(preds: list[int], targets: list[int]) -> None:
    ious = np.array([[bits_iou(pred, target) for target in targets] for pred in preds])
    trace, sample = answered(rles(preds)), sample_of(rles(targets))
    recall, precision = ious.max(axis=0).mean(), ious.max(axis=1).mean()
    score = DualMaskIoU()(trace, sample)
    assert score.value == pytest.approx((recall + precision) / 2)
    assert score.parts == pytest.approx(
        {
            "mask_recall_iou": recall,
            "mask_precision_iou": precision,
            "dual_mask_iou": (recall + precision) / 2,
            "pred_masks": len(preds),
        }
    )
    assert DualMaskIoU(precision=False)(trace, sample).value == pytest.approx(recall)
    assert DualMaskIoU(recall=False)(trace, sample).value == pytest.approx(precision)
    total = sum(best_pairings(preds, targets)[0])
    hungarian = DualMaskIoU(matching="hungarian")(trace, sample)
    assert hungarian.value == pytest.approx((total / len(targets) + total / len(preds)) / 2)


@given(few_masks, few_masks, st.sampled_from([0.0, 0.25, 0.45]))
def test_the_masks_of_vrt_earn_the_formula(preds: list[int], targets: list[int], threshold: float) -> None:
    score = VRTMaskIoU(threshold=threshold, resolution=None)(answered(rles(preds)), sample_of(rles(targets)))
    expected = []
    for pairing in best_pairings(preds, targets):
        kept = [iou for iou in pairing if iou > threshold]
        unmatched = len(preds) + len(targets) - 2 * len(kept)
        expected.append(sum(kept) / len(kept) - 0.1 * unmatched if kept else 0.0)
    assert any(score.value == pytest.approx(value) for value in expected)
    assert min(0.0, threshold - 0.1 * (len(preds) + len(targets) - 2)) - 1e-9 <= score.value <= 1.0
    assert score.parts["mask_iou"] == score.value and score.parts["answer_masks"] == len(preds)


@pytest.mark.parametrize(
    ("widths", "true_widths", "value", "pairs"),
    [
        ([8], [8], 1.0, 1),
        ([6], [8], 0.75, 1),
        ([4], [8], 0.0, 0),  # IoU 0.5 is not above 0.5
        ([5, 8], [8], 1.0 - 0.1, 1),  # the first mask is not the better one
        ([8], [2, 8], 1.0 - 0.1, 1),
        ([8] * 13, [8], 1.0 - 0.1 * 12, 1),  # below 0
        ([6, 4], [8, 4], (0.75 + 1.0) / 2, 2),
        ([], [8], 0.0, 0),
    ],
)
def test_examples_of_vrt(widths: list[int], true_widths: list[int], value: float, pairs: int) -> None:
    def strips(sides: list[int]) -> list[Rle]:
        return [box_rle((0, 0, side, 8), Size(8, 8)) for side in sides]

    score = VRTMaskIoU()(answered(strips(widths)), sample_of(strips(true_widths), size=Size(8, 8)))
    assert (score.status, score.value) == ("ok", pytest.approx(value))
    assert score.parts["matched_masks"] == pairs


def test_truth_is_brought_to_the_resolution_of_the_predictions() -> None:
    image = Size(640, 480)
    truth, small = box_rle((100, 100, 400, 300), image), box_rle((40, 53, 160, 160), Size(256, 256))
    expected = rle_iou([small], [resample(truth, Size(256, 256))])[0][0]
    assert 0.9 < expected < 1
    trace, sample = answered([small]), sample_of([truth], size=image)
    assert VRTMaskIoU()(trace, sample).value == expected
    assert DualMaskIoU(resolution=256)(trace, sample).value == expected
    for reward, name in ((VRTMaskIoU(resolution=None), "mask_iou"), (DualMaskIoU(), "dual_mask_iou")):
        score = reward(trace, sample)
        assert score.status == "failed"
        assert score.reason == (
            f"masks of 256x256 and 640x480 px cannot be compared; resample them to one size ({name}.resolution=None)"
        )


WHOLE, LEFT, RIGHT = (box_rle(box, SIZE) for box in ((0, 0, 4, 3), (0, 0, 2, 3), (2, 0, 4, 3)))


def test_only_answer_masks_count_for_vrt_and_roles_choose_for_dual_iou() -> None:
    targets = (
        Target(None, "", "evidence", LEFT),
        Target(None, "", "answer", RIGHT),
        Target((0, 0, 1, 1), "", "answer"),
    )
    sample = Sample("7", "test", "Where?", "", "none", (), targets, SIZE)
    trace = answered([LEFT, WHOLE, WHOLE], thought=1)
    assert VRTMaskIoU(threshold=0.4)(trace, sample).value == pytest.approx(0.5 - 0.1)
    values = {roles: DualMaskIoU(roles=roles)(trace, sample).value for roles in ("answer", "evidence", "all")}
    assert values == pytest.approx({"answer": 0.5, "evidence": 1.0, "all": (0.75 + 2 / 3) / 2})


def test_boxes_are_graded_as_masks_by_where_they_stand() -> None:
    def target(role: Role, box: Box) -> Target:
        return Target(None, "", role, box_rle(box, SIZE))

    targets = (target("evidence", (0, 0, 2, 3)), target("answer", (2, 0, 4, 3)))
    sample = Sample("7", "test", "Where?", "", "none", (), targets, SIZE)
    thought, told, late = "<box>[0,0,2,3]</box>", "<box>[2,0,3,3]</box>", "<box>[0,0,4,3]</box>"

    def value(response: str, roles: Any) -> float:
        trace = parse_trace(response, GEOMETRY, "model_px")
        return DualMaskIoU(source="boxes", roles=roles)(trace, sample).value

    response = f"{thought}</think><answer>{told}</answer>{late}"
    assert value(response, "evidence") == 1.0
    assert value(response, "answer") == 0.5
    assert value(response, "all") == pytest.approx(((1.0 + 0.5) / 2 + (1.0 + 0.5 + 0.5) / 3) / 2)
    assert value(f"{thought}</think>", "evidence") == 1.0
    assert value(f"{thought}</think>", "answer") == 0.0


def test_a_segmenters_masks_are_graded_where_their_boxes_stand() -> None:
    box = "<box>[0,0,4,3]</box>"
    trace = parse_trace(f"{box}</think><answer>{box}{box}</answer>", GEOMETRY, "model_px")
    masked = trace._replace(box_masks=(LEFT, RIGHT, WHOLE))
    sample = sample_of([LEFT, RIGHT])

    def value(given: Trace, roles: Any) -> float:
        targets = [Target(None, "", role, rle) for role, rle in (("evidence", LEFT), ("answer", RIGHT))]  # type: ignore[arg-type]
        return DualMaskIoU(source="box_masks", roles=roles)(given, replace(sample, targets=tuple(targets))).value

    assert value(masked, "evidence") == 1.0
    assert value(masked, "answer") == pytest.approx((1 + (1 + 0.5) / 2) / 2)
    assert value(masked, "all") == pytest.approx((1 + (1 + 1 + 0.5) / 3) / 2)
    assert DualMaskIoU(source="box_masks")(trace, sample).status == "failed"
    nothing = parse_trace("</think><answer></answer>", GEOMETRY, "model_px")
    assert (DualMaskIoU(source="box_masks")(nothing, sample)).value == 0.0


@pytest.mark.parametrize("reward", [VRTMaskIoU(resolution=None), DualMaskIoU(), DualMaskIoU(roles="answer")])
def test_a_mask_that_could_not_be_decoded_counts_as_a_bad_one(reward: Any) -> None:
    good, spoilt = (reward(answered(preds), sample_of([LEFT])) for preds in ([LEFT], [LEFT, None]))
    assert good.value == 1.0
    assert 0 < spoilt.value < 1
    assert reward(answered([None]), sample_of([LEFT])).value == 0.0


@pytest.mark.parametrize("reward", [VRTMaskIoU(), DualMaskIoU()])
def test_missing_masks_are_a_failure_and_missing_targets_are_not_graded(reward: Any) -> None:
    sample = sample_of([LEFT])

    def outcome(score: Score) -> tuple[str, str]:
        return score.status, score.reason

    assert outcome(reward(answered(None, segs=2), sample)) == (
        "failed",
        "the response has 2 [SEG] but no masks were made for it",
    )
    assert outcome(reward(answered([LEFT], segs=2), sample)) == (
        "failed",
        "the response has 2 [SEG] but came with 1 masks; one for each is needed",
    )
    assert outcome(reward(answered([LEFT, LEFT], segs=1), sample))[0] == "failed"
    assert reward(answered([], segs=0), sample).value == reward(answered(None, segs=0), sample).value == 0.0
    assert reward(answered([LEFT]), sample_of([None])).status == "not_applicable"


def test_a_response_with_two_answers_earns_nothing() -> None:
    trace = parse_trace("</think><answer>[SEG]</answer><answer></answer>", GEOMETRY, "model_px", masks=[LEFT])
    assert VRTMaskIoU()(trace, sample_of([LEFT])).value == DualMaskIoU()(trace, sample_of([LEFT])).value == 0.0


def test_both_can_be_composed() -> None:
    composer = Composer.from_config([{"name": "mask_iou"}, {"name": "dual_mask_iou", "params": {"resolution": 256}}])
    assert composer.score(answered([LEFT]), sample_of([LEFT])).value == 2.0


@pytest.mark.parametrize(
    ("reward", "params", "message"),
    [
        (VRTMaskIoU, {"threshold": 1.0}, r"mask_iou\.threshold=1.0 .*below 1"),
        (VRTMaskIoU, {"threshold": float("nan")}, r"mask_iou\.threshold=nan"),
        (VRTMaskIoU, {"count_penalty": -0.1}, r"mask_iou\.count_penalty=-0.1 .*0 or more"),
        (VRTMaskIoU, {"resolution": 0}, r"mask_iou\.resolution=0 .*1 or more, or null"),
        (DualMaskIoU, {"resolution": -1}, r"dual_mask_iou\.resolution=-1"),
        (DualMaskIoU, {"recall": False, "precision": False}, "one must be on"),
        (DualMaskIoU, {"matching": "greedy"}, r"dual_mask_iou\.matching='greedy' .*best or hungarian"),
        (DualMaskIoU, {"roles": "both"}, r"dual_mask_iou\.roles='both' .*answer, evidence or all"),
        (DualMaskIoU, {"source": "points"}, r"dual_mask_iou\.source='points' .*masks, boxes or box_masks"),
    ],
)
def test_bad_parameters_are_named(reward: Any, params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        reward(**params)
