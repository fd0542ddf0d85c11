"""The answer reward of TreeVGR (arXiv 2507.07999): 1 when the answer is right, else 0.

Choices are graded by the option they name, open answers by a normalised match with the true answer.
"""

from dataclasses import dataclass
from typing import assert_never

from rewards.answers import choice_letter, same_text
from rewards.score import Score
from vgr_rl.grounding.sample import Sample
from vgr_rl.grounding.trace import Trace


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Grade the text of the answer tag: part `accuracy`, 0 or 1.

    A missing, empty or over-long answer is wrong, and so is one that names several options. A sample without an
    answer to grade (`answer_kind` none) is not applicable; a sample whose own answer names no option has failed.

    Args:
        max_answer_chars: longer answers are wrong without being read.

    Raises:
        ValueError: when `max_answer_chars` is not positive.

    Example:
        >>> from vgr_rl.grounding import ImageGeometry, Size, parse_trace
        >>> size = Size(64, 64)
        >>> sample = Sample("1", "doc", "Colour?", "B", "choice", ("blue", "red"), (), size)
        >>> trace = parse_trace("it is red</think><answer>(B)</answer>", ImageGeometry(size, size), "model_px")
        >>> Accuracy()(trace, sample).value
        1.0
    """

    max_answer_chars: int = 1000

    def __post_init__(self) -> None:
        if self.max_answer_chars < 1:
            raise ValueError(f"accuracy.max_answer_chars={self.max_answer_chars} but it must be at least 1")

    def __call__(self, trace: Trace, sample: Sample) -> Score:
        """Grade one response."""
        if sample.answer_kind == "none":
            return Score.not_applicable("the sample has no answer to grade")
        if sample.answer_kind == "choice":
            return self._choice(trace.answer, sample)
        if sample.answer_kind == "open":
            return self._open(trace.answer, sample)
        assert_never(sample.answer_kind)

    def _choice(self, answer: str | None, sample: Sample) -> Score:
        truth = choice_letter(sample.answer, sample.options)
        if truth is None:
            options = f"{len(sample.options)} options" if sample.options else "letters"
            return Score.failed(f"the sample's answer {sample.answer!r} names none of its {options}")
        return _score(self._readable(answer) and choice_letter(answer or "", sample.options) == truth)

    def _open(self, answer: str | None, sample: Sample) -> Score:
        if not sample.answer.strip():
            return Score.failed("the sample's answer is empty; set answer_kind to none to leave it ungraded")
        return _score(self._readable(answer) and same_text(answer or "", sample.answer))

    def _readable(self, answer: str | None) -> bool:
        return answer is not None and 0 < len(answer) <= self.max_answer_chars


def _score(right: bool) -> Score:
    return Score(float(right), {"accuracy": float(right)})
