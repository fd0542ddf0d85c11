"""The detection reward against pycocotools, on whole numbers: there both compute every IoU without rounding."""

import io
import random
import time
from contextlib import redirect_stdout
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rewards import Score
from rewards.mean_ap import MeanAP
from vgr_rl.grounding import ImageGeometry, Sample, Size, Target, parse_trace

SIZE = Size(100, 100)
IntBox = tuple[int, int, int, int]


@st.composite
def int_boxes(draw: st.DrawFn) -> IntBox:
    """Boxes that overlap often, at many IoUs from 0.5 on, and sometimes equally well."""
    x, y = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    return x, y, x + draw(st.integers(10, 20)), y + draw(st.integers(10, 20))


def grade(preds: list[IntBox], targets: list[IntBox], junk: str = "", **params: Any) -> Score:
    written = "".join(f"<box>[{x1},{y1},{x2},{y2}]</box>" for x1, y1, x2, y2 in preds)
    trace = parse_trace(written + junk + "</think>", ImageGeometry(SIZE, SIZE), "model_px")
    sample = Sample("7", "test", "Where?", "", "none", (), tuple(Target(box) for box in targets), SIZE)
    return MeanAP(**params)(trace, sample)


def coco_stats(preds: list[IntBox], targets: list[IntBox]) -> tuple[float, float]:
    """AP and AP50 of COCOeval for one image and one class, with equal scores."""

    def annotations(boxes: list[IntBox]) -> list[dict[str, Any]]:
        common = {"image_id": 1, "category_id": 1, "iscrowd": 0, "score": 1.0}
        sides = [(x1, y1, x2 - x1, y2 - y1) for x1, y1, x2, y2 in boxes]
        return [common | {"id": i, "bbox": list(box), "area": box[2] * box[3]} for i, box in enumerate(sides, start=1)]

    with redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {"images": [{"id": 1}], "categories": [{"id": 1}], "annotations": annotations(targets)}
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(annotations(preds)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[0], evaluation.stats[1]


@settings(deadline=None)
@given(st.lists(int_boxes(), min_size=1, max_size=12), st.lists(int_boxes(), min_size=1, max_size=8))
def test_the_precision_is_that_of_coco_and_the_value_less_for_too_many(
    preds: list[IntBox], targets: list[IntBox]
) -> None:
    mean_ap, ap50 = coco_stats(preds, targets)
    count_factor = min(1, len(targets) / len(preds))
    score = grade(preds, targets)
    assert score.status == "ok"
    assert score.parts == pytest.approx({"mean_ap": mean_ap, "ap50": ap50, "count_factor": count_factor})
    assert score.value == pytest.approx(mean_ap * count_factor)
    assert grade(preds, targets, shrink_by_count=False).value == pytest.approx(mean_ap)


@pytest.mark.parametrize(("count", "targets"), [(130, 20), (150, 25), (120, 100), (90, 130)])
def test_the_precision_is_that_of_coco_for_many_boxes(count: int, targets: int) -> None:
    draw = random.Random(count)
    boxes: list[IntBox] = [(x, y, x + 8, y + 8) for x in range(0, 120, 9) for y in range(0, 90, 9)][:targets]
    preds = [
        (x1, y1, x2 + draw.randint(0, 3), y2 + draw.randint(0, 3)) for x1, y1, x2, y2 in draw.choices(boxes, k=count)
    ]
    score = grade(preds, boxes)
    assert (score.parts["mean_ap"], score.parts["ap50"]) == pytest.approx(coco_stats(preds, boxes))


@pytest.mark.parametrize("second", [(0, 0, 10, 10), (4, 0, 14, 10)])
def test_of_two_targets_that_fit_equally_well_coco_s_choice_is_taken(second: IntBox) -> None:
    targets: list[IntBox] = [(0, 0, 10, 10), (4, 0, 14, 10)]
    preds: list[IntBox] = [(2, 0, 12, 10), second]  # the first may leave the second without its target
    expected = coco_stats(preds, targets)
    score = grade(preds, targets)
    assert (score.parts["mean_ap"], score.parts["ap50"]) == pytest.approx(expected)
    assert (expected[1] < 1) == (second == targets[1])


def test_the_order_of_appearance_is_the_ranking() -> None:
    target: list[IntBox] = [(0, 0, 10, 10)]
    assert grade([(0, 0, 10, 10), (50, 50, 60, 60)], target).parts["mean_ap"] == pytest.approx(1)
    assert grade([(50, 50, 60, 60), (0, 0, 10, 10)], target).parts["mean_ap"] == pytest.approx(1 / 2)


def test_copies_and_enumeration_cost_by_their_number_alone() -> None:
    target: list[IntBox] = [(0, 0, 10, 10)]
    assert grade(target * 4, target).value == pytest.approx(1 / 4)
    assert grade(target * 4, target, shrink_by_count=False).value == pytest.approx(1)


def test_boxes_past_the_limit_count_in_their_number_only() -> None:
    target: list[IntBox] = [(0, 0, 10, 10)]
    preds = [(50, 50, 60, 60)] * 100 + target
    assert grade(preds, target).parts == pytest.approx({"mean_ap": 0, "ap50": 0, "count_factor": 1 / 101})
    score = grade(preds, target, max_boxes=101)
    assert score.parts == pytest.approx({"mean_ap": 1 / 101, "ap50": 1 / 101, "count_factor": 1 / 101})


def test_no_box_scores_0_and_no_target_does_not_apply() -> None:
    score = grade([], [(0, 0, 5, 5)], junk="<box>here</box>")
    assert (score.value, score.status) == (0.0, "ok")
    assert score.parts == {"mean_ap": 0.0, "ap50": 0.0, "count_factor": 1.0}
    score = grade([(0, 0, 5, 5)], [])
    assert (score.status, score.parts) == ("not_applicable", {})


def test_targets_without_a_box_are_skipped_and_both_roles_count() -> None:
    trace = parse_trace("<box>[0,0,5,5]</box></think>", ImageGeometry(SIZE, SIZE), "model_px")
    targets = (Target(None, "a mask"), Target((0, 0, 5, 5)), Target((50, 50, 60, 60), role="answer"))
    score = MeanAP()(trace, Sample("7", "test", "Where?", "", "none", (), targets, SIZE))
    assert score.value == pytest.approx(51 / 101)  # recalls 0, 0.01 … 0.5
    only_mask = Sample("7", "test", "Where?", "", "none", (), targets[:1], SIZE)
    assert MeanAP()(trace, only_mask).status == "not_applicable"


@pytest.mark.parametrize("same", [True, False])
def test_many_boxes_are_graded_in_a_moment(same: bool) -> None:
    boxes: list[IntBox] = [(0, 0, 9, 9) if same else (x, y, x + 9, y + 9) for x in range(64) for y in range(64)]
    start = time.process_time()
    score = grade(boxes, boxes[:100], max_boxes=4096)
    assert time.process_time() - start < 3
    assert score.value == pytest.approx(100 / 4096)


@pytest.mark.parametrize("max_boxes", [0, -1])
def test_bad_parameters_are_named(max_boxes: int) -> None:
    with pytest.raises(ValueError, match=rf"mean_ap\.max_boxes={max_boxes}.*at least 1"):
        MeanAP(max_boxes=max_boxes)
