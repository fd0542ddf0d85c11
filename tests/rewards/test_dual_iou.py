"""The dual IoU reward against the formula, by an independent way to count: painted cells and all pairings."""

import math
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards import DualIoU, Score
from vgr_rl.grounding import Box, ImageGeometry, Sample, Size, Target, giou, parse_trace

SIZE = Size(10, 10)
IntBox = tuple[int, int, int, int]


@st.composite
def int_boxes(draw: st.DrawFn) -> IntBox:
    x1, y1 = draw(st.integers(0, 9)), draw(st.integers(0, 9))
    return x1, y1, draw(st.integers(x1 + 1, 10)), draw(st.integers(y1 + 1, 10))


def grade(preds: list[IntBox], targets: list[IntBox], junk: str = "", **params: Any) -> Score:
    written = "".join(f"<box>[{x1},{y1},{x2},{y2}]</box>" for x1, y1, x2, y2 in preds)
    trace = parse_trace(written + junk + "</think>", ImageGeometry(SIZE, SIZE), "model_px")
    sample = Sample("7", "test", "Where?", "", "none", (), tuple(Target(box) for box in targets), SIZE)
    return DualIoU(**params)(trace, sample)


def cells_iou(a: IntBox, b: IntBox) -> float:
    painted = np.zeros((2, 10, 10), dtype=bool)
    for index, (x1, y1, x2, y2) in enumerate((a, b)):
        painted[index, y1:y2, x1:x2] = True
    return painted.all(axis=0).sum() / painted.any(axis=0).sum()


def formula(preds: list[IntBox], targets: list[IntBox]) -> tuple[float, float]:
    """recall = 1/M sum_k max_i IoU(b_i,g_k), precision = 1/N sum_i max_k IoU(b_i,g_k)."""
    recall = sum(max(cells_iou(b, g) for b in preds) for g in targets) / len(targets)
    precision = sum(max(cells_iou(b, g) for g in targets) for b in preds) / len(preds)
    return recall, precision


few_boxes = st.lists(int_boxes(), min_size=1, max_size=4)


@given(few_boxes, few_boxes)
def test_the_default_is_the_formula_of_the_paper(preds: list[IntBox], targets: list[IntBox]) -> None:
    recall, precision = formula(preds, targets)
    score = grade(preds, targets)
    assert score.status == "ok"
    assert score.value == pytest.approx((recall + precision) / 2)
    assert score.parts == pytest.approx(
        {"recall_iou": recall, "precision_iou": precision, "dual_iou": (recall + precision) / 2, "boxes": len(preds)}
    )


@given(few_boxes, few_boxes)
def test_a_term_that_is_off_is_still_measured(preds: list[IntBox], targets: list[IntBox]) -> None:
    recall, precision = formula(preds, targets)
    recall_only, precision_only = grade(preds, targets, precision=False), grade(preds, targets, recall=False)
    assert recall_only.value == pytest.approx(recall)
    assert precision_only.value == pytest.approx(precision)
    assert recall_only.parts == precision_only.parts == grade(preds, targets).parts


@settings(deadline=None)
@given(few_boxes, few_boxes)
def test_hungarian_is_the_best_of_all_one_to_one_pairings(preds: list[IntBox], targets: list[IntBox]) -> None:
    short, long = sorted((preds, targets), key=len)
    total = max(sum(map(cells_iou, short, chosen)) for chosen in permutations(long, len(short)))
    score = grade(preds, targets, matching="hungarian")
    assert score.parts["recall_iou"] == pytest.approx(total / len(targets))
    assert score.parts["precision_iou"] == pytest.approx(total / len(preds))
    assert score.value <= grade(preds, targets).value + 1e-9


def test_no_box_scores_0_and_no_target_does_not_apply() -> None:
    score = grade([], [(0, 0, 5, 5)])
    assert (score.value, score.status, score.parts["boxes"]) == (0.0, "ok", 0.0)
    score = grade([(0, 0, 5, 5)], [])
    assert (score.status, score.parts) == ("not_applicable", {})


def test_targets_without_a_box_are_skipped_and_both_roles_count() -> None:
    trace = parse_trace("<box>[0,0,5,5]</box></think>", ImageGeometry(SIZE, SIZE), "model_px")
    targets = (Target(None, "a mask"), Target((0, 0, 5, 5)), Target((0, 0, 5, 10), role="answer"))
    score = DualIoU()(trace, Sample("7", "test", "Where?", "", "none", (), targets, SIZE))
    assert score.parts["recall_iou"] == pytest.approx(0.75)
    only_mask = Sample("7", "test", "Where?", "", "none", (), targets[:1], SIZE)
    assert DualIoU()(trace, only_mask).status == "not_applicable"


def test_predictions_are_compared_in_pixels_of_the_stored_image() -> None:
    trace = parse_trace("<box>[0,0,500,1000]</box></think>", ImageGeometry(Size(640, 480), Size(644, 476)), "norm1000")
    sample = Sample("7", "test", "Where?", "", "none", (), (Target((0, 0, 320, 480)),), Size(640, 480))
    assert DualIoU()(trace, sample).value == 1.0


def test_the_area_outside_the_image_counts_against_a_box() -> None:
    assert grade([(0, 0, 20, 10)], [(0, 0, 10, 10)]).value == pytest.approx(0.5)


def test_recall_alone_rewards_enumeration_and_precision_stops_it() -> None:
    every_box = [(x, y, x + w, y + h) for x in range(0, 8, 2) for y in range(0, 8, 2) for w in (2, 4) for h in (2, 4)]
    target = [(2, 2, 6, 6)]
    honest = [(2, 2, 6, 5)]
    assert grade(every_box, target, precision=False).value > grade(honest, target, precision=False).value
    assert grade(every_box, target).value < grade(honest, target).value


def test_copies_cost_nothing_in_the_paper_and_something_by_choice() -> None:
    target, copies = [(2, 2, 6, 6)], [(2, 2, 6, 6)] * 4
    assert grade(copies, target).value == 1.0
    assert grade(copies, target, matching="hungarian").value == pytest.approx((1 + 1 / 4) / 2)
    punished = grade(copies, target, duplicate_penalty=0.4)
    assert punished.parts["duplicate_rate"] == pytest.approx(3 / 4)
    assert punished.value == pytest.approx(1 - 0.4 * 3 / 4)
    assert "duplicate_rate" not in grade(copies, target).parts


def test_one_box_serves_several_targets_only_when_matching_is_best() -> None:
    targets, box = [(0, 0, 5, 10), (5, 0, 10, 10)], [(0, 0, 10, 10)]
    assert grade(box, targets).parts["recall_iou"] == pytest.approx(0.5)
    assert grade(box, targets, matching="hungarian").parts["recall_iou"] == pytest.approx(0.25)


def test_near_copies_are_those_above_the_threshold() -> None:
    boxes: list[IntBox] = [(0, 0, 10, 10), (0, 0, 10, 9), (0, 0, 10, 5)]
    for threshold, rate in ((0.9, 0.0), (0.89, 1 / 3), (0.4, 2 / 3)):
        score = grade(boxes, [(0, 0, 10, 10)], duplicate_penalty=1.0, duplicate_iou=threshold)
        assert score.parts["duplicate_rate"] == pytest.approx(rate)
    assert grade([], [(0, 0, 10, 10)], duplicate_penalty=1.0).value == 0.0


def test_malformed_boxes_are_dropped_or_counted() -> None:
    target: list[IntBox] = [(0, 0, 5, 5)]
    junk = "<box>[0, 0, 5, 5]</box><box>here</box><box>"
    assert grade(target, target, junk).parts["precision_iou"] == 1.0
    counted = grade(target, target, junk, malformed="count")
    assert counted.parts["precision_iou"] == pytest.approx(1 / 4)
    assert counted.parts["recall_iou"] == 1.0
    assert counted.parts["boxes"] == 1.0
    assert grade(target, target, junk, malformed="count", matching="hungarian").value == pytest.approx((1 + 1 / 4) / 2)
    assert grade([], target, junk, malformed="count").value == 0.0


@settings(deadline=None)
@given(few_boxes, few_boxes)
def test_the_generalised_iou_takes_the_place_of_the_iou(preds: list[IntBox], targets: list[IntBox]) -> None:
    matrix = [[giou(pred, target) for target in targets] for pred in preds]
    recall = sum(max(column) for column in zip(*matrix, strict=True)) / len(targets)
    precision = sum(map(max, matrix)) / len(preds)
    score = grade(preds, targets, kind="giou")
    assert score.value == pytest.approx((recall + precision) / 2)
    assert -1 <= score.value <= grade(preds, targets).value + 1e-9
    short, long = sorted((preds, targets), key=len)
    total = max(
        sum(giou(a, b) for a, b in zip(short, chosen, strict=True)) for chosen in permutations(long, len(short))
    )
    paired = grade(preds, targets, kind="giou", matching="hungarian")
    assert paired.parts["recall_iou"] == pytest.approx((total - (len(targets) - len(short))) / len(targets))
    assert paired.parts["precision_iou"] == pytest.approx((total - (len(preds) - len(short))) / len(preds))


def test_with_the_generalised_iou_no_box_is_never_better_than_a_wrong_one() -> None:
    target: list[IntBox] = [(0, 0, 2, 2)]
    near, far = grade([(3, 0, 5, 2)], target, kind="giou"), grade([(8, 8, 10, 10)], target, kind="giou")
    assert 0 > near.value > far.value > grade([], target, kind="giou").value == -1.0
    counted = grade(target, target, "<box>here</box>", kind="giou", malformed="count")
    assert (counted.parts["recall_iou"], counted.parts["precision_iou"]) == (1.0, 0.0)


def test_overlaps_below_the_threshold_count_as_none() -> None:
    boxes: list[IntBox] = [(0, 0, 10, 10), (0, 0, 10, 5)]
    target: list[IntBox] = [(0, 0, 10, 10)]
    assert grade(boxes, target).parts["precision_iou"] == pytest.approx(0.75)
    assert grade(boxes, target, threshold=0.5).parts["precision_iou"] == pytest.approx(0.75)
    assert grade(boxes, target, threshold=0.6).parts["precision_iou"] == pytest.approx(0.5)
    assert grade(boxes[1:], target, threshold=0.6).value == 0.0
    assert grade(boxes[1:], target, threshold=0.6, matching="hungarian").value == 0.0
    assert grade(boxes[1:], target, threshold=0.6, kind="giou").value == -1.0


def test_a_schedule_raises_the_threshold_with_the_progress_of_the_training() -> None:
    reward = DualIoU(malformed="count", schedule=((0.0, 0.85), (0.1, 0.95), (0.25, 0.99)))
    thresholds = [reward.at(progress).threshold for progress in (0.0, 0.09, 0.1, 0.2, 0.25, 1.0)]
    assert thresholds == [0.85, 0.85, 0.95, 0.95, 0.99, 0.99]
    assert reward.threshold == 0.0 and reward.at(0.5).malformed == "count"
    assert reward.at(1.0).at(0.0) == reward.at(0.0)  # the schedule stays
    steady = DualIoU(threshold=0.3)
    assert steady.at(0.5) is steady
    as_a_config_has_it = DualIoU(schedule=[[0, 0.85], [0.1, 0.95], [0.25, 0.99]], malformed="count")  # type: ignore[arg-type]
    assert as_a_config_has_it == reward
    for progress in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"dual_iou: progress"):
            reward.at(progress)


@pytest.mark.parametrize("kind", ["iou", "giou"])
@pytest.mark.parametrize("matching", ["best", "hungarian"])
@pytest.mark.parametrize("odd", [(math.nan, 0, 9, 9), (0, 0, math.inf, 9), (9, 9, 0, 0), (0, 0, 1e200, 1e200)])
def test_a_target_that_is_no_finite_box_overlaps_nothing(odd: Box, kind: str, matching: str) -> None:
    trace = parse_trace("<box>[0,0,5,5]</box></think>", ImageGeometry(SIZE, SIZE), "model_px")
    sample = Sample("7", "test", "Where?", "", "none", (), (Target((0, 0, 5, 5)), Target(odd)), SIZE)
    score = DualIoU(kind=kind, matching=matching)(trace, sample)  # type: ignore[arg-type]
    assert score.parts["precision_iou"] == 1.0
    assert score.parts["recall_iou"] <= 0.5
    assert kind == "giou" or score.parts["recall_iou"] == 0.5


def test_many_boxes_are_graded_in_seconds() -> None:
    boxes: list[IntBox] = [(x % 9, y % 9, x % 9 + 1, y % 9 + 1) for x in range(64) for y in range(64)]
    score = grade(boxes, boxes[:6], matching="hungarian", duplicate_penalty=0.1)
    assert score.parts["boxes"] == 4096


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"recall": False, "precision": False}, "at least one"),
        ({"matching": "greedy"}, "best or hungarian"),
        ({"malformed": "keep"}, "drop or count"),
        ({"duplicate_penalty": -0.1}, "0 or more"),
        ({"duplicate_penalty": float("nan")}, "0 or more"),
        ({"duplicate_iou": 1.5}, "between 0 and 1"),
        ({"kind": "diou"}, "iou or giou"),
        ({"threshold": 1.5}, "between 0 and 1"),
        ({"threshold": float("nan")}, "between 0 and 1"),
        ({"schedule": ((0.0, 0.5, 0.6),)}, r"\(progress, threshold\)"),
        ({"schedule": ((0.0, 1.5),)}, "between 0 and 1"),
        ({"schedule": ((0.1, 0.5),)}, "start at 0 and increase"),
        ({"schedule": ((0.0, 0.5), (0.5, 0.6), (0.2, 0.7))}, "start at 0 and increase"),
        ({"schedule": ((0.0, 0.5), (0.0, 0.6))}, "start at 0 and increase"),
    ],
)
def test_bad_parameters_are_named(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"dual_iou\..*{message}"):
        DualIoU(**params)
