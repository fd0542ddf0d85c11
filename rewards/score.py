"""What a reward returns, and what a reward is."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple, Protocol

from vgr_rl.grounding.sample import Sample
from vgr_rl.grounding.trace import Trace

Status = Literal["ok", "not_applicable", "failed"]
"""`ok`: value counts. `not_applicable`: the sample has nothing to grade. `failed`: could not be graded; not a 0."""


class Score(NamedTuple):
    """The outcome of one reward for one response.

    Attributes:
        value: what the reward is worth; meaningless unless `status` is "ok".
        parts: measurements behind the value, by metric name.
        status: whether the value counts.
        reason: why it does not; empty when it does.
    """

    value: float
    parts: Mapping[str, float] = MappingProxyType({})
    status: Status = "ok"
    reason: str = ""

    @classmethod
    def not_applicable(cls, reason: str) -> "Score":
        """Return the score of a sample that this reward says nothing about."""
        return cls(value=0.0, status="not_applicable", reason=reason)

    @classmethod
    def failed(cls, reason: str) -> "Score":
        """Return the score of a response that could not be graded; its value is not a number."""
        return cls(value=float("nan"), status="failed", reason=reason)


class Reward(Protocol):
    """A pure function of a parsed response and its sample.

    A reward that changes over the training has a method `at(progress) -> Reward` too: it returns the reward of the
    moment when that share of the training, in [0, 1], is done (see `DualIoU.at`). `Composer.at` calls it where it is.

    Example:
        >>> def brevity(trace: Trace, sample: Sample) -> Score:
        ...     value = 1.0 if len(trace.text) < 400 else 0.0
        ...     return Score(value, {"brevity": value})
    """

    def __call__(self, trace: Trace, sample: Sample) -> Score:
        """Grade one response."""
        ...
