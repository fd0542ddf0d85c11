"""Which samples to keep, from the scores of a model's responses to each. Pure."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Graded:
    """The scores of a model's responses to one sample.

    Attributes:
        scores: one a response; empty when the model was not asked.
        why: why it was not asked, or why a response has no score; else "".
    """

    scores: tuple[float, ...]
    why: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of one sample.

    Attributes:
        kept: whether it stays.
        rule: the rule that decided; what the counts are by.
        why: the numbers behind it.
    """

    kept: bool
    rule: str
    why: str


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Return the probability that one of `k` responses is right, unbiased (arXiv 2107.03374, equation 1).

    Args:
        samples: responses that were drawn, at least `k`.
        right: those that were right.
        k: responses that one would look at.
    """
    assert 0 <= right <= samples and 1 <= k <= samples
    return 1.0 - math.comb(samples - right, k) / math.comb(samples, k)


def keep_hard(graded: Mapping[str, Graded], k: int, max_pass: float) -> dict[str, Decision]:
    """Keep what a model gets wrong: pass@k is at most `max_pass`. A response is right when its score is at least 1."""
    return {name: _ungraded(group) or _hard(group.scores, k, max_pass) for name, group in graded.items()}


def keep_spread(graded: Mapping[str, Graded], top: int) -> dict[str, Decision]:
    """Keep the `top` samples whose scores spread most (arXiv 2512.05091), by their standard deviation.

    A group without spread teaches nothing and is never kept. Of equal spreads, those that come first are kept.
    """
    spreads = {name: statistics.pstdev(group.scores) for name, group in graded.items() if not _ungraded(group)}
    ranked = sorted((name for name, spread in spreads.items() if spread > 0), key=lambda name: -spreads[name])
    rank_of = {name: rank for rank, name in enumerate(ranked, start=1)}
    return {
        name: _ungraded(group) or _spread(spreads[name], rank_of.get(name), len(ranked), top)
        for name, group in graded.items()
    }


def keep_consensus(right: Mapping[str, Sequence[bool]], most_right: int) -> dict[str, Decision]:
    """Keep the questions that at most `most_right` of several models answer right (after arXiv 2507.07999).

    Args:
        right: for each question whether each model is right.
        most_right: below the number of models; one less leaves out what all of them know.
    """
    return {name: _consensus(votes, most_right) for name, votes in right.items()}


def _consensus(votes: Sequence[bool], most_right: int) -> Decision:
    why = f"{sum(votes)} of {len(votes)} models right, at most {most_right} wanted"
    return Decision(True, "hard", why) if sum(votes) <= most_right else Decision(False, "easy", why)


def _ungraded(group: Graded) -> Decision | None:
    return Decision(False, "not graded", group.why) if group.why else None


def _hard(scores: Sequence[float], k: int, max_pass: float) -> Decision:
    right = sum(score >= 1 for score in scores)
    rate = pass_at_k(len(scores), right, k)
    why = f"{right} of {len(scores)} right: pass@{k} {rate:.3f}, at most {max_pass:g} wanted"
    return Decision(True, "hard", why) if rate <= max_pass else Decision(False, "easy", why)


def _spread(spread: float, rank: int | None, ranked: int, top: int) -> Decision:
    if rank is None:
        return Decision(False, "flat", "all scores are equal")
    why = f"standard deviation {spread:.3f}: rank {rank} of {ranked}, the first {top} wanted"
    return Decision(True, "spread", why) if rank <= top else Decision(False, "less spread", why)
