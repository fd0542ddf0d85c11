"""The multi-object reward against the released formula, by all pairings and by arrays."""

import math
import time
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards import Score, multi_object
from rewards.multi_object import MultiObject
from vgr_rl.grounding import ImageGeometry, Sample, Size, Target, iou, parse_trace

SIZE = Size(84, 42)  # a pixel along x is 10 of the stretched image, one along y 20
IntBox = tuple[int, int, int, int]


@st.composite
def int_boxes(draw: st.DrawFn) -> IntBox:
    x, y = draw(st.integers(0, 4)), draw(st.integers(0, 4))
    return x, y, x + draw(st.integers(1, 6)), y + draw(st.integers(1, 6))


few_boxes = st.lists(int_boxes(), min_size=1, max_size=4)


def grade(preds: list[IntBox], targets: list[IntBox], junk: str = "", size: Size = SIZE, **params: Any) -> Score:
    written = "".join(f"<box>[{x1},{y1},{x2},{y2}]</box>" for x1, y1, x2, y2 in preds)
    trace = parse_trace(written + junk + "</think>", ImageGeometry(size, size), "model_px")
    sample = Sample("7", "test", "Where?", "", "none", (), tuple(Target(box) for box in targets), size)
    return MultiObject(**params)(trace, sample)


def credit(pred: IntBox, target: IntBox) -> int:
    """Tests passed by a pair, with the distances in pixels of an image of 840 x 840."""
    scale = (10, 20, 10, 20)
    p, t = [a * s for a, s in zip(pred, scale, strict=True)], [a * s for a, s in zip(target, scale, strict=True)]
    centres = [((box[0] + box[2]) / 2, (box[1] + box[3]) / 2) for box in (p, t)]
    l1 = sum(abs(a - b) for a, b in zip(p, t, strict=True)) / 4
    return (iou(pred, target) > 0.5) + (l1 < 10) + (math.dist(*centres) < 30)


@given(few_boxes, few_boxes)
def test_the_value_is_the_best_of_all_one_to_one_pairings(preds: list[IntBox], targets: list[IntBox]) -> None:
    short, long = sorted((preds, targets), key=len)
    best = max(sum(map(credit, short, chosen)) for chosen in permutations(long, len(short)))
    score = grade(preds, targets)
    assert score.status == "ok"
    assert score.value == pytest.approx(best / len(long))
    assert score.value == pytest.approx(sum(score.parts.values()))
    assert all(0 <= part <= 1 for part in score.parts.values())


@given(st.lists(int_boxes(), max_size=8), st.lists(int_boxes(), min_size=1, max_size=8))
def test_few_and_many_pairs_are_tested_alike(preds: list[IntBox], targets: list[IntBox]) -> None:
    few = grade(preds, targets)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multi_object, "_NUMPY_PAIRS", 0)
        assert grade(preds, targets).value == pytest.approx(few.value)


@pytest.mark.parametrize(
    ("pred", "parts"),
    [
        ((200, 200, 400, 400), (1, 1, 1)),
        ((200, 200, 300, 400), (0, 0, 0)),  # IoU 0.5 is not above 0.5; centres 50 apart
        ((200, 200, 302, 400), (1, 0, 0)),
        ((209, 209, 409, 411), (1, 1, 1)),
        ((210, 210, 410, 410), (1, 0, 1)),  # L1 10 is not below 10
        ((224, 182, 424, 382), (1, 0, 0)),  # centres 30 apart
        ((224, 183, 424, 383), (1, 0, 1)),
        ((270, 270, 330, 330), (0, 0, 1)),
    ],
)
def test_one_pair(pred: IntBox, parts: tuple[int, int, int]) -> None:
    score = grade([pred], [(200, 200, 400, 400)], size=Size(840, 840))
    assert tuple(score.parts.values()) == parts
    assert score.value == sum(parts)


def test_distances_are_measured_in_the_stretched_image() -> None:
    size, target = Size(84, 84), [(20, 20, 40, 40)]
    assert grade([(21, 21, 41, 41)], target, size=size).parts["multi_object_l1"] == 0.0  # 10 px of 840
    assert grade([(21, 21, 41, 41)], target, size=size, stretched_side=83).parts["multi_object_l1"] == 1.0


def test_the_larger_side_divides() -> None:
    target = [(20, 20, 40, 40)]
    assert grade(target * 3, target).value == pytest.approx(1)
    assert grade(target, [*target, (50, 20, 60, 40), (70, 20, 80, 40)]).value == pytest.approx(1)
    assert grade(target, target).value == 3.0


def test_no_box_scores_0_and_no_target_does_not_apply() -> None:
    score = grade([], [(0, 0, 5, 5)], junk="<box>here</box>")
    assert (score.value, score.status) == (0.0, "ok")
    assert score.parts == {"multi_object_iou": 0.0, "multi_object_l1": 0.0, "multi_object_point": 0.0}
    score = grade([(0, 0, 5, 5)], [])
    assert (score.status, score.parts) == ("not_applicable", {})


def test_targets_without_a_box_are_skipped_and_both_roles_count() -> None:
    trace = parse_trace("<box>[0,0,5,5]</box></think>", ImageGeometry(SIZE, SIZE), "model_px")
    targets = (Target(None, "a mask"), Target((0, 0, 5, 5)), Target((50, 20, 60, 40), role="answer"))
    score = MultiObject()(trace, Sample("7", "test", "Where?", "", "none", (), targets, SIZE))
    assert score.value == pytest.approx(3 / 2)
    only_mask = Sample("7", "test", "Where?", "", "none", (), targets[:1], SIZE)
    assert MultiObject()(trace, only_mask).status == "not_applicable"


def test_boxes_far_outside_the_image_pass_no_test() -> None:
    assert grade([(0, 0, 999_999_999, 999_999_999)], [(0, 0, 5, 5)]).value == 0.0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf, 1e308])
@pytest.mark.parametrize("count", [1, 200])
def test_coordinates_that_are_no_place_pass_no_test(odd: float, count: int) -> None:
    trace = parse_trace("<box>[0,0,5,5]</box>" * count, ImageGeometry(SIZE, SIZE), "model_px")
    sample = Sample("7", "test", "Where?", "", "none", (), (Target((0.0, 0.0, 5.0, odd)),), SIZE)
    score = MultiObject()(trace, sample)
    assert (score.value, score.status) == (0.0, "ok")


@pytest.mark.parametrize("same", [True, False])
def test_many_boxes_are_graded_in_a_moment(same: bool) -> None:
    boxes: list[IntBox] = [(0, 0, 9, 9) if same else (x, y, x + 9, y + 9) for x in range(64) for y in range(64)]
    start = time.process_time()
    score = grade(boxes, boxes[:100])
    assert time.process_time() - start < 3
    assert score.value == pytest.approx(3 * 100 / 4096)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"min_iou": 1.1}, r"min_iou=1.1.*between 0 and 1"),
        ({"min_iou": math.nan}, r"min_iou=nan.*between 0 and 1"),
        ({"max_l1": 0.0}, r"max_l1=0.0.*above 0"),
        ({"max_point_distance": math.inf}, r"max_point_distance=inf.*above 0"),
        ({"stretched_side": -1.0}, r"stretched_side=-1.0.*above 0"),
    ],
)
def test_bad_parameters_are_named(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"multi_object\.{message}"):
        MultiObject(**params)
