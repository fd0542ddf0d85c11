"""One-to-one matching of predictions and targets, shared by every reward that pairs them."""

from collections.abc import Sequence


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
