import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgr_rl.grounding import Box, area, best_iou, earlier_iou, giou, giou_matrix, intersection, iou, iou_matrix

GRID = 12


@st.composite
def grid_boxes(draw: st.DrawFn) -> Box:
    x1, y1 = draw(st.integers(0, GRID - 1)), draw(st.integers(0, GRID - 1))
    return x1, y1, draw(st.integers(x1 + 1, GRID)), draw(st.integers(y1 + 1, GRID))


def painted(box: Box) -> np.ndarray:
    """The cells of a whole-numbered box: another way to count its area."""
    x1, y1, x2, y2 = map(int, box)
    cells = np.zeros((GRID, GRID), dtype=bool)
    cells[y1:y2, x1:x2] = True
    return cells


@given(grid_boxes(), grid_boxes())
def test_overlaps_equal_the_count_of_painted_cells(a: Box, b: Box) -> None:
    in_a, in_b = painted(a), painted(b)
    both, either = (in_a & in_b).sum(), (in_a | in_b).sum()
    assert area(a) == in_a.sum()
    assert intersection(a, b) == both
    assert iou(a, b) == pytest.approx(both / either)
    rows, columns = np.nonzero(in_a | in_b)
    hull = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    assert giou(a, b) == pytest.approx(both / either - (hull - either) / hull)


@given(st.lists(grid_boxes(), max_size=60), st.lists(grid_boxes(), max_size=30))
def test_the_matrix_is_the_same_for_few_and_for_many_pairs(preds: list[Box], targets: list[Box]) -> None:
    expected = [[iou(pred, target) for target in targets] for pred in preds]
    assert iou_matrix(preds, targets) == expected
    many = iou_matrix(preds * 20, targets * 20) if preds and targets else []
    assert [row[: len(targets)] for row in many[: len(preds)]] == (expected if many else [])


@given(st.lists(grid_boxes(), max_size=80))
def test_earlier_iou_looks_at_earlier_boxes_only(boxes: list[Box]) -> None:
    expected = [max([iou(box, other) for other in boxes[:index]], default=0.0) for index, box in enumerate(boxes)]
    assert earlier_iou(boxes) == expected
    if boxes:
        assert earlier_iou(boxes * 3)[: len(boxes)] == expected
        assert earlier_iou(boxes * 3)[len(boxes) :] == [1.0] * 2 * len(boxes)


def test_empty_and_reversed_boxes_have_no_area_and_no_overlap() -> None:
    whole: Box = (0, 0, 10, 10)
    for box in [(5, 5, 5, 9), (8, 8, 2, 2), (10, 0, 20, 10)]:
        assert intersection(whole, box) == iou(whole, box) == iou(box, whole) == 0.0
    assert area((8, 8, 2, 2)) == 0.0


@given(st.lists(grid_boxes(), max_size=40), st.lists(grid_boxes(), max_size=20))
def test_the_best_of_each_box_is_the_largest_of_its_row_or_column(preds: list[Box], targets: list[Box]) -> None:
    matrix = [[iou(pred, target) for target in targets] for pred in preds]
    of_preds = [max(row, default=0.0) for row in matrix]
    of_targets = [max((row[index] for row in matrix), default=0.0) for index in range(len(targets))]
    assert best_iou(preds, targets) == (of_preds, of_targets)
    if preds and targets:
        many_preds, many_targets = best_iou(preds * 25, targets * 25)
        assert (many_preds, many_targets) == (of_preds * 25, of_targets * 25)


def test_the_generalised_iou_tells_how_far_apart_boxes_are() -> None:
    near, far = giou_matrix([(0, 0, 2, 2)], [(2, 0, 4, 2), (4, 0, 6, 2)])[0]
    assert (near, far) == (0.0, pytest.approx(-1 / 3))
    assert giou_matrix([], [(0, 0, 1, 1)]) == []


numbers = st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([0.0, 1.0, 2.0, 3.0, -1.0, 1e200, 5e-324])
any_boxes = st.tuples(numbers, numbers, numbers, numbers)


@given(st.lists(any_boxes, min_size=1, max_size=4), st.lists(any_boxes, min_size=1, max_size=4))
def test_any_four_numbers_are_a_box_with_overlaps_inside_the_bounds(preds: list[Box], targets: list[Box]) -> None:
    matrix = iou_matrix(preds, targets)
    of_preds, of_targets = list(map(max, matrix)), list(map(max, zip(*matrix, strict=True)))
    assert all(0.0 <= overlap <= 1.0 for row in matrix for overlap in row)
    general = giou_matrix(preds, targets)
    assert all(-1.0 <= overlap <= 1.0 for row in general for overlap in row)
    many = giou_matrix(preds * 20, targets * 30)  # by numpy
    assert [row[: len(targets)] for row in many[: len(preds)]] == general
    assert best_iou(preds, targets) == (of_preds, of_targets)
    many_preds, many_targets = best_iou(preds * 20, targets * 30)  # by numpy
    assert (many_preds, many_targets) == (of_preds * 20, of_targets * 30)


@pytest.mark.parametrize(
    "odd",
    [(math.nan, 0, 9, 9), (0, 0, 9, math.nan), (0, 0, math.inf, 9), (-math.inf, 0, 9, 9), (0, 0, 1e200, 1e200)]
    + [(9, 9, 0, 0), (9, 0, 0, 9), (0, 0, 0, 9)],
)
def test_boxes_without_a_finite_area_overlap_nothing(odd: Box) -> None:
    for other in (odd, (0, 0, 9, 9)):
        assert iou(odd, other) == iou(other, odd) == 0.0
        assert giou(odd, other) <= 0.0


@given(any_boxes, any_boxes)
def test_overlaps_do_not_depend_on_the_order(a: Box, b: Box) -> None:
    assert iou(a, b) == iou(b, a)
    assert giou(a, b) == giou(b, a)
