from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from rewards.matching import one_to_one

Matrix = list[list[float]]


@st.composite
def matrices(draw: st.DrawFn, most: int = 5) -> Matrix:
    """Rows of coarse numbers, so that ties and shared favourites are common; some below 0, as in GIoU."""
    rows, columns = draw(st.integers(1, most)), draw(st.integers(1, most))
    numbers = st.integers(-2, 4).map(lambda number: number / 4)
    return draw(st.lists(st.lists(numbers, min_size=columns, max_size=columns), min_size=rows, max_size=rows))


def total(matrix: Matrix, pairs: list[tuple[int, int]]) -> float:
    return sum(matrix[row][column] for row, column in pairs)


@given(matrices())
def test_no_one_to_one_pairing_has_a_larger_total(matrix: Matrix) -> None:
    rows, columns = range(len(matrix)), range(len(matrix[0]))
    if len(rows) <= len(columns):
        pairings = [list(zip(rows, chosen, strict=True)) for chosen in permutations(columns, len(rows))]
    else:
        pairings = [list(zip(chosen, columns, strict=True)) for chosen in permutations(rows, len(columns))]
    assert total(matrix, one_to_one(matrix)) == max(total(matrix, pairs) for pairs in pairings)


@given(matrices(most=12))
def test_it_pairs_as_many_as_scipy_for_the_same_total(matrix: Matrix) -> None:
    pairs = one_to_one(matrix)
    rows, columns = linear_sum_assignment(matrix, maximize=True)
    assert total(matrix, pairs) == pytest.approx(total(matrix, list(zip(rows, columns, strict=True))))
    assert len(pairs) == len(rows) == len({row for row, _ in pairs}) == len({column for _, column in pairs})
    assert pairs == sorted(pairs)


@pytest.mark.parametrize(
    ("matrix", "pairs"),
    [
        ([], []),
        ([[], []], []),
        ([[0.0]], [(0, 0)]),
        ([[0.1, 0.3, 0.2]], [(0, 1)]),
        ([[0.1], [0.3], [0.2]], [(1, 0)]),
        ([[0.9, 0.8], [0.7, 0.1]], [(0, 1), (1, 0)]),
        ([[0.0, 0.9], [0.8, 0.0], [0.0, 0.0]], [(0, 1), (1, 0)]),
    ],
)
def test_pairs_come_in_order_of_the_rows(matrix: Matrix, pairs: list[tuple[int, int]]) -> None:
    assert one_to_one(matrix) == pairs
