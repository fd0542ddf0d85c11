import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgr_rl.grounding import Box, area, earlier_iou, giou, intersection, iou, iou_matrix

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


def test_empty_and_reversed_boxes_have_no_area_and_no_overlap() -> None:
    whole: Box = (0, 0, 10, 10)
    for box in [(5, 5, 5, 9), (8, 8, 2, 2), (10, 0, 20, 10)]:
        assert intersection(whole, box) == iou(whole, box) == iou(box, whole) == 0.0
    assert area((8, 8, 2, 2)) == 0.0


finite = st.floats(-1e6, 1e6)


@given(st.tuples(finite, finite, finite, finite), st.tuples(finite, finite, finite, finite))
def test_bounds_hold_for_any_finite_numbers(a: Box, b: Box) -> None:
    assert 0.0 <= iou(a, b) <= 1.0 + 1e-9
