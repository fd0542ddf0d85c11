"""Weigh several rewards and add them up, keeping every part and every status visible."""

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rewards.load import load_reward
from rewards.score import Reward, Score, Status
from vgr_rl.grounding.sample import Sample
from vgr_rl.grounding.trace import Trace

logger = logging.getLogger(__name__)

_TERM_KEYS = frozenset({"name", "use", "weight", "params"})


@dataclass(frozen=True, slots=True)
class Term:
    """One reward in a sum.

    Attributes:
        name: what the term is called in configs, statuses and logs; unique in its composer.
        reward: grades a response.
        weight: factor of its value; 0 measures without rewarding, below 0 punishes.
    """

    name: str
    reward: Reward
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Composed:
    """The outcome of all terms for one response.

    Attributes:
        value: weighted sum of the terms that apply; not a number when a term failed.
        parts: measurements of all terms that are "ok", by metric name.
        status: "failed" when a term failed, "not_applicable" when none applies, else "ok".
        terms: score of every term by name, whatever its status.
    """

    value: float
    parts: dict[str, float]
    status: Status
    terms: dict[str, Score]


@dataclass(frozen=True, slots=True)
class Composer:
    """A weighted sum of rewards: `value = sum of weight * value over the terms that are ok`.

    A term that does not apply to a sample drops out with its parts. A term that raises, returns something else than a
    `Score`, returns a number that is not finite, or a part that an earlier term has given, is failed: the response
    then has no value (never 0), and the reason is in `Composed.terms`.

    Raises:
        ValueError: when there is no term, a name comes twice or a weight is not finite.

    Example:
        >>> from vgr_rl.grounding import ImageGeometry, Sample, Size, parse_trace
        >>> from rewards.format import Format
        >>> size = Size(64, 64)
        >>> sample = Sample("1", "doc", "Colour?", "", "none", (), (), size)
        >>> trace = parse_trace("so</think><answer>red</answer>", ImageGeometry(size, size), "model_px")
        >>> Composer((Term("format", Format(), weight=0.5),)).score(trace, sample).value
        0.5
    """

    terms: tuple[Term, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "terms", tuple(self.terms))
        if not self.terms:
            raise ValueError("reward.terms is empty but at least one term is needed")
        names = [term.name for term in self.terms]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"reward.terms: name {repeated[0]!r} comes {names.count(repeated[0])} times; rename one")
        for term in self.terms:
            if not math.isfinite(term.weight):
                raise ValueError(f"reward.terms: weight of {term.name!r} is {term.weight} but it must be finite")

    def score(self, trace: Trace, sample: Sample) -> Composed:
        """Grade one response with every term; never raises because of a term."""
        scores: dict[str, Score] = {}
        parts: dict[str, float] = {}
        value = 0.0
        for term in self.terms:
            score = _graded(term, trace, sample, taken=parts.keys())
            scores[term.name] = score
            if score.status == "ok":
                value += term.weight * score.value
                parts.update(score.parts)
        statuses = {score.status for score in scores.values()}
        if "failed" in statuses:
            return Composed(math.nan, parts, "failed", scores)
        return Composed(value, parts, "ok" if "ok" in statuses else "not_applicable", scores)

    @classmethod
    def from_config(cls, config: Sequence[Mapping[str, Any]]) -> "Composer":
        """Build a composer from the `reward.terms` of a config.

        Each entry has `name`, and may have `weight` (1.0), `params` (passed on by name) and `use`: a built-in reward
        (the name, when left out), `package.module:object` or `path/to/file.py:object`.

        Raises:
            ValueError: when an entry has an unknown key, or its reward cannot be found or refuses its parameters.

        Example:
            >>> [term.name for term in Composer.from_config([{"name": "format"}, {"name": "dual_iou"}]).terms]
            ['format', 'dual_iou']
        """
        return cls(tuple(_term(f"reward.terms[{index}]", entry) for index, entry in enumerate(config)))


def _term(where: str, entry: Mapping[str, Any]) -> Term:
    if not isinstance(entry, Mapping):
        raise ValueError(f"{where}={entry!r} but expected a mapping with the keys {', '.join(sorted(_TERM_KEYS))}")
    if unknown := sorted(set(entry) - _TERM_KEYS):
        raise ValueError(f"{where} has the key {unknown[0]!r} but expected {', '.join(sorted(_TERM_KEYS))}")
    name, weight = entry.get("name"), entry.get("weight", 1.0)
    if not isinstance(name, str) or not name:
        raise ValueError(f"{where}.name={name!r} but expected a name")
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise ValueError(f"{where}.weight={weight!r} but expected a number")
    reward = load_reward(entry.get("use") or name, dict(entry.get("params") or {}), where=where)
    return Term(name, reward, float(weight))


def _graded(term: Term, trace: Trace, sample: Sample, taken: Collection[str]) -> Score:
    """Call one reward and turn whatever goes wrong into a failed score."""
    try:
        score = _checked(term.reward(trace, sample), taken)
    except Exception as error:  # a user's code may raise anything, and one response must not end the run
        logger.debug("reward %s raised on sample %s", term.name, sample.id, exc_info=True)
        score = Score.failed(f"{type(error).__name__}: {error}")
    if score.status == "failed":
        logger.warning("reward %s failed on sample %s: %s", term.name, sample.id, score.reason)
    return score


def _checked(score: object, taken: Collection[str]) -> Score:
    if not isinstance(score, Score):
        return Score.failed(f"returned {type(score).__name__} but expected rewards.Score")
    if score.status in ("not_applicable", "failed"):
        return score
    if score.status != "ok":
        return Score.failed(f"returned status={score.status!r} but expected ok, not_applicable or failed")
    if not math.isfinite(score.value):
        return Score.failed(f"returned value={score.value}")
    for part, value in score.parts.items():
        if not math.isfinite(value):
            return Score.failed(f"returned part {part}={value}")
        if part in taken:
            return Score.failed(f"returned part {part!r}, which an earlier term returned too; rename it")
    return score
