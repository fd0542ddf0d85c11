"""Which prediction belongs to which target, shared by every reward that pairs them."""

from collections.abc import Sequence
from typing import Literal

Matching = Literal["best", "hungarian"]
"""`best`: everything takes its best partner; `hungarian`: pairs one to one, with the largest total."""


def one_to_one(ious: Sequence[Sequence[float]]) -> list[tuple[int, int]]:
    """Return the pairs `(row, column)` of the one-to-one matching with the largest total, in order of the rows.

    Every row or every column is matched, whichever are fewer: pairs worth 0 or less are among them, and the caller
    drops those that it does not want. Equal totals are told apart in the same way each time.

    Args:
        ious: finite numbers, `[predictions][targets]`, rows of one length; no row or no column gives no pair.

    Example:
        >>> one_to_one([[0.9, 0.8], [0.7, 0.1]])
        [(0, 1), (1, 0)]
    """
    if not ious or not ious[0]:
        return []
    few_rows = len(ious) <= len(ious[0])
    lines = ious if few_rows else list(zip(*ious, strict=True))
    best = [line.index(max(line)) for line in lines]
    if len(set(best)) < len(best):  # two lines want the same partner
        from scipy.optimize import linear_sum_assignment

        rows, columns = linear_sum_assignment(ious, maximize=True)
        return list(zip(rows.tolist(), columns.tolist(), strict=True))
    return list(enumerate(best)) if few_rows else sorted(zip(best, range(len(best)), strict=True))


def partner_overlaps(
    matrix: Sequence[Sequence[float]], targets: int, matching: Matching, unmatched: float = 0.0
) -> tuple[list[float], list[float]]:
    """Return what each prediction, and each target, has in common with its partner.

    Args:
        matrix: overlaps, `[predictions][targets]`.
        targets: number of targets, which no prediction leaves the matrix silent about; at least 1.
        matching: how partners are found.
        unmatched: what it is worth to have no partner.

    Example:
        >>> partner_overlaps([[0.9, 0.8], [0.7, 0.1]], 2, "best")
        ([0.9, 0.7], [0.9, 0.8])
        >>> partner_overlaps([[0.9], [0.7]], 1, "hungarian")
        ([0.9, 0.0], [0.9])
    """
    if matching == "best" and matrix:
        return list(map(max, matrix)), list(map(max, zip(*matrix, strict=True)))
    of_preds, of_targets = [unmatched] * len(matrix), [unmatched] * targets
    for row, column in one_to_one(matrix):
        of_preds[row] = of_targets[column] = matrix[row][column]
    return of_preds, of_targets
