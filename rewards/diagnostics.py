"""Signs of reward hacking: numbers of one response, of a batch, and the limits past which a person should look.

None of them is a reward. They show what the known holes of evidence rewards look like when a policy finds them:
enumerating boxes, repeating a good box, boxing the whole image, answering first and pointing later.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rewards.dual_iou import DualIoU, duplicate_rate
from vgr_rl.grounding.boxes import intersection
from vgr_rl.grounding.sample import Sample
from vgr_rl.grounding.trace import Trace

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DUPLICATE_IOU = 0.9
"""Two boxes of a response above this IoU are copies."""

WHOLE_IMAGE = 0.9
"""A box that covers more than this share of the image points at nothing."""

MIN_CORRELATED = 32
"""Fewer responses than this give no correlation: it would be noise."""

_TAG_OR_LETTER = re.compile(r"</?(?:think|answer|box)>|\[SEG\]|(?P<letter>[^\W\d_])")


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit on the mean of one number of `diagnose`.

    Attributes:
        metric: name of the number.
        above: a mean above this is a warning.
        advice: what it may mean and which setting to turn, for people.
    """

    metric: str
    above: float
    advice: str


WARNINGS: tuple[Limit, ...] = (
    Limit(
        "boxes",
        12.0,
        "the policy may enumerate boxes; keep reward.terms.dual_iou.params.precision on, or add a box_valid term",
    ),
    Limit(
        "duplicate_rate",
        0.2,
        "the policy repeats boxes; set reward.terms.dual_iou.params.matching to hungarian or raise duplicate_penalty",
    ),
    Limit(
        "whole_image_rate",
        0.3,
        "the policy boxes whole images; set reward.terms.dual_iou.params.matching to hungarian or raise threshold",
    ),
    Limit(
        "recall_without_precision",
        0.3,
        "targets are hit by boxes that are mostly wrong; keep reward.terms.dual_iou.params.precision on",
    ),
    Limit(
        "answer_before_evidence",
        0.2,
        "answers come before the boxes that should support them; raise reward.terms.format.weight",
    ),
    Limit(
        "unreferenced_rate",
        0.5,
        "boxes stand without text that refers to them; look at the responses, the cold start may lack such text",
    ),
)
"""What to warn about, in the order in which it is shown."""

CONFLICT = -0.5
"""Two reward terms that correlate below this pull the policy in two directions."""


def diagnose(trace: Trace, sample: Sample) -> dict[str, float]:
    """Measure one response; what cannot be measured is left out.

    `boxes` is the number of boxes. With boxes: `duplicate_rate` and `whole_image_rate` are the shares of boxes that
    repeat an earlier one and that cover nearly the whole image, `unreferenced_rate` the share of boxes with no letter
    between them and the box (or the start) before them. With boxes and an answer: `answer_before_evidence` is 1 when
    the answer opens before the first box, else 0. With boxes and target boxes: `recall_without_precision` is how far
    recall IoU lies above precision IoU, else 0.

    Returns:
        numbers by name; all but `boxes` are in [0, 1].

    Example:
        >>> from vgr_rl.grounding import ImageGeometry, Size, parse_trace
        >>> size = Size(64, 64)
        >>> sample = Sample("1", "doc", "Where?", "", "none", (), (), size)
        >>> trace = parse_trace("a cup <box>[0,0,9,9]</box><box>[0,0,9,9]</box>", ImageGeometry(size, size), "orig_px")
        >>> diagnose(trace, sample)
        {'boxes': 2.0, 'duplicate_rate': 0.5, 'whole_image_rate': 0.0, 'unreferenced_rate': 0.5}
    """
    count = len(trace.boxes)
    numbers = {"boxes": float(count)}
    if not count:
        return numbers
    width, height = sample.image_size
    preds = [box.box_orig_px for box in trace.boxes]
    image = (0.0, 0.0, float(width), float(height))
    numbers["duplicate_rate"] = duplicate_rate(preds, DUPLICATE_IOU)
    numbers["whole_image_rate"] = sum(intersection(p, image) > WHOLE_IMAGE * width * height for p in preds) / count
    numbers["unreferenced_rate"] = sum(not referred for referred in _referred(trace)) / count
    if (answer := trace.text.find("<answer>")) >= 0:
        numbers["answer_before_evidence"] = float(answer < trace.boxes[0].span[0])
    overlap = DualIoU()(trace, sample)
    if overlap.status == "ok":
        gap = overlap.parts["recall_iou"] - overlap.parts["precision_iou"]
        numbers["recall_without_precision"] = max(gap, 0.0)
    return numbers


def correlations(columns: Mapping[str, Sequence[float]]) -> dict[tuple[str, str], float]:
    """Return Pearson's correlation of every pair of columns.

    Args:
        columns: numbers of the same responses by name, such as the values of the reward terms; NaN where a response
            has none. A pair is measured over the responses that have both.

    Returns:
        the correlation, in [-1, 1], by pair of names in the order of `columns`. A pair is left out when fewer than
        `MIN_CORRELATED` responses have both, or one of the two is constant there.

    Raises:
        ValueError: when the columns differ in length.

    Example:
        >>> rising = [float(n) for n in range(40)]
        >>> correlations({"accuracy": rising, "boxes": [-2 * n for n in rising], "format": [1.0] * 40})
        {('accuracy', 'boxes'): -1.0}
    """
    import numpy as np

    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"columns of {lengths} responses but they must be equally long")
    arrays = {name: np.asarray(column, dtype=np.float64) for name, column in columns.items()}
    found: dict[tuple[str, str], float] = {}
    for (name_a, a), (name_b, b) in itertools.combinations(arrays.items(), 2):
        both = np.isfinite(a) & np.isfinite(b)
        if both.sum() >= MIN_CORRELATED and np.ptp(a[both]) > 0 and np.ptp(b[both]) > 0:
            x, y = _unit(a[both]), _unit(b[both])
            found[name_a, name_b] = round(float(x @ y), 12)
    return found


def warnings(
    means: Mapping[str, float],
    correlated: Mapping[tuple[str, str], float] | None = None,
    limits: Mapping[str, float] | None = None,
) -> dict[str, str]:
    """Say in plain words what looks like reward hacking; an empty result is good news.

    Args:
        means: means of the numbers of `diagnose` over a batch, by name; others are ignored.
        correlated: what `correlations` says about the values of the reward terms.
        limits: limits that replace those of `WARNINGS`, by name: some data need many boxes.

    Returns:
        message by the name of the number, or by `term~term` for two that pull against each other.

    Example:
        >>> warnings({"boxes": 20.0, "duplicate_rate": 0.1}, limits={"boxes": 40.0})
        {}
    """
    found = {}
    for limit in WARNINGS:
        above = (limits or {}).get(limit.metric, limit.above)
        if means.get(limit.metric, 0.0) > above:
            found[limit.metric] = f"{limit.metric} is {means[limit.metric]:.2f}, above {above:g}: {limit.advice}"
    for (term_a, term_b), correlation in (correlated or {}).items():
        if correlation < CONFLICT:
            found[f"{term_a}~{term_b}"] = (
                f"{term_a} and {term_b} pull against each other (correlation {correlation:.2f}); weigh them by "
                f"reward.terms.{term_a}.weight and reward.terms.{term_b}.weight"
            )
    return found


def _unit(column: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """Centre a column that is not constant and scale it to length 1, without squares that leave the floats."""
    centred = column - column.mean()
    centred /= abs(centred).max()
    scaled: NDArray[np.float64] = centred / (centred @ centred) ** 0.5
    return scaled


def _referred(trace: Trace) -> list[bool]:
    """Say for each box whether a letter stands between it and the box before it, the letters of tags aside."""
    starts = [0, *(box.span[1] for box in trace.boxes)]
    return [
        any(match["letter"] for match in _TAG_OR_LETTER.finditer(trace.text, start, box.span[0]))
        for start, box in zip(starts, trace.boxes, strict=False)
    ]
