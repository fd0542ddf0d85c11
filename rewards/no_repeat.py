"""The non-repeat reward of VisionReasoner (arXiv 2505.12081): 0 when the response says the same sentence again.

As in the authors' released reward, a sentence is what stands between two full stops, stripped of white space and
compared as it is written, and the second repeat in a response costs the whole reward.

Beyond theirs, other characters can end a sentence too, and how many repeats are allowed is a parameter. Two holes are
theirs as well: a loop without a sentence end is one long sentence (`length` stops it), and an empty response repeats
nothing.
"""

from dataclasses import dataclass

from rewards.score import Score
from vgr_rl.grounding.sample import Sample
from vgr_rl.grounding.trace import Trace


@dataclass(frozen=True, slots=True)
class NoRepeat:
    """Grade whether the response repeats itself, sentence by sentence; the value is 0 or 1.

    Part `no_repeat` is the value, part `repeat_rate` the share of sentences that an earlier one equals, in [0, 1).
    Every sample is applicable. The whole response is read, tags and boxes included: sentences that differ in a box
    differ.

    Args:
        allowed_repeats: so many repeated sentences cost nothing; one more costs everything.
        sentence_ends: the characters that end a sentence; ".!?;" finds more of them.

    Raises:
        ValueError: when `allowed_repeats` is negative or `sentence_ends` is empty.

    Example:
        >>> from vgr_rl.grounding import ImageGeometry, Size, parse_trace
        >>> size = Size(64, 64)
        >>> sample = Sample("1", "doc", "Colour?", "", "none", (), (), size)
        >>> trace = parse_trace("It is. So it is. So it is. So it is.", ImageGeometry(size, size), "model_px")
        >>> NoRepeat()(trace, sample).parts
        {'no_repeat': 0.0, 'repeat_rate': 0.5}
    """

    allowed_repeats: int = 1
    sentence_ends: str = "."

    def __post_init__(self) -> None:
        if self.allowed_repeats < 0:
            raise ValueError(f"no_repeat.allowed_repeats={self.allowed_repeats} but it must be 0 or more")
        if not self.sentence_ends:
            raise ValueError("no_repeat.sentence_ends is empty but at least one character must end a sentence")

    def __call__(self, trace: Trace, sample: Sample) -> Score:
        """Grade one response."""
        text, end = trace.text, self.sentence_ends[0]
        for other_end in self.sentence_ends[1:]:
            text = text.replace(other_end, end)
        sentences = [sentence for sentence in map(str.strip, text.split(end)) if sentence]
        repeats = len(sentences) - len(set(sentences))
        value = float(repeats <= self.allowed_repeats)
        return Score(value, {"no_repeat": value, "repeat_rate": repeats / max(len(sentences), 1)})
