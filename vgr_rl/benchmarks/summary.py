"""Means, their standard errors, and the paired comparison of two evaluations of the same items."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

LABELS = {
    "reward": "Reward",
    "accuracy": "Answer accuracy",
    "recall_iou": "Recall IoU",
    "precision_iou": "Precision IoU",
    "dual_iou": "Dual IoU",
    "format": "Format kept",
    "boxes": "Boxes a response",
    "length": "Length, tokens",
}
"""What tables and figures call each measure."""

MEASURES = tuple(LABELS)
"""What a summary holds, in the order of the table."""

Item = tuple[str, Any]
"""Data source and id."""

_PART = re.compile(r"reward/(.+)/mean")
_OWN_KEYS = {"reward": "score", "length": "length"}


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over items.

    Attributes:
        mean: the mean, NaN when there is no item.
        stderr: sample standard deviation over sqrt(n), NaN below two items.
        n: how many items had a value.
    """

    mean: float
    stderr: float
    n: int


def item(row: Mapping[str, Any]) -> Item:
    """Return what tells the item of a row from all others: an id is unique only within its data source."""
    return str(row.get("data_source", "")), row["id"]


def part_label(part: str) -> str:
    """Return what tables and figures call a part of the reward.

    Example:
        >>> part_label("dual_iou"), part_label("mask_iou"), part_label("x_y")
        ('Dual IoU', 'Mask IoU', 'X y')
    """
    return LABELS.get(part, part.replace("_", " ").capitalize().replace("iou", "IoU"))


def part_of(metric: str) -> str | None:
    """Return the part of the reward that a metric is the mean of, None for other metrics.

    Example:
        >>> part_of("reward/dual_iou/mean"), part_of("reward/dual_iou/std")
        ('dual_iou', None)
    """
    found = _PART.fullmatch(metric)
    return None if found is None else found[1]


def measure(row: Mapping[str, Any], name: str) -> float | None:
    """Return one of `MEASURES` of a row, or None where the row has no such value (a failed or absent reward term)."""
    if name == "boxes":
        return float(len(row["boxes_orig_px"]))
    value = row.get(_OWN_KEYS[name]) if name in _OWN_KEYS else row["parts"].get(name)
    return None if value is None or not math.isfinite(value) else float(value)


def estimate(values: Sequence[float]) -> Estimate:
    """Return the mean of `values` and its standard error."""
    n = len(values)
    return Estimate(
        mean=fmean(values) if n else math.nan,
        stderr=stdev(values) / math.sqrt(n) if n > 1 else math.nan,
        n=n,
    )


def summarise(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Summarise the rows of one mode as `{measure: mean, n: rows, stderr: {measure: …}}`.

    A measure without a value, and the standard error of fewer than two items, is None (null in JSON).
    """
    estimates = {
        name: estimate([value for row in rows if (value := measure(row, name)) is not None]) for name in MEASURES
    }
    return {
        **{name: _finite(value.mean) for name, value in estimates.items()},
        "n": len(rows),
        "stderr": {name: _finite(value.stderr) for name, value in estimates.items()},
    }


def compare(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> dict[str, Estimate]:
    """Return for each measure the mean of `after - before` over the items that both have, paired by `item`.

    Pairing removes the differences between items from the error: it is what two evaluations of one held-out set should
    be compared by. Items whose value is missing on either side are left out of that measure.

    Raises:
        ValueError: when the two have no item in common, or an item occurs twice in one of them.
    """
    first, second = _by_item(before, "before"), _by_item(after, "after")
    common = [key for key in first if key in second]
    if not common:
        raise ValueError(
            f"the two evaluations share no id ({len(first)} and {len(second)} rows); evaluate both with the same data="
        )
    result: dict[str, Estimate] = {}
    for name in MEASURES:
        pairs = [(measure(first[key], name), measure(second[key], name)) for key in common]
        result[name] = estimate([new - old for old, new in pairs if old is not None and new is not None])
    return result


def number(value: float) -> str:
    """Write a mean as tables show it."""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def signed(value: float) -> str:
    """Write a difference as tables show it, with its sign.

    Example:
        >>> signed(0.25), signed(-12.34)
        ('+0.250', '−12.3')
    """
    return f"{'+' if value >= 0 else '−'}{number(abs(value))}"


def ordinal(number: int) -> str:
    """Write a whole number as a place in an order.

    Example:
        >>> ordinal(2), ordinal(11), ordinal(23)
        ('2nd', '11th', '23rd')
    """
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _by_item(rows: Sequence[Mapping[str, Any]], side: str) -> dict[Item, Mapping[str, Any]]:
    by_item = {item(row): row for row in rows}
    if len(by_item) != len(rows):
        raise ValueError(f"the rows of `{side}` repeat an id ({len(rows)} rows, {len(by_item)} ids)")
    return by_item


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
