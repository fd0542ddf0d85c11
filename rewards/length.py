"""The soft over-long punishment of DAPO (arXiv 2503.14476, section on over-long reward shaping), in characters.

With L the length of the response, the limit L_max and the buffer L_cache before it:

    0                                  where L <= L_max - L_cache
    ((L_max - L_cache) - L) / L_cache  where L_max - L_cache < L <= L_max
    -1                                 where L_max < L

The paper counts tokens. A trace has only its text, so characters are counted here, about four to a token of English
prose: words would let a response without spaces grow for nothing. verl's factor of the punishment is the weight of
the term; verl sets no floor because its responses end at L_max.
"""

from dataclasses import dataclass

from rewards.score import Score
from vgr_rl.grounding.sample import Sample
from vgr_rl.grounding.trace import Trace


@dataclass(frozen=True, slots=True)
class Length:
    """Punish a response for its length; the value is in [-1, 0].

    Part `length` is the value, part `response_chars` the number of characters, a restored prefill included. Every
    sample is applicable. The defaults suit responses of up to about 2,048 tokens.

    Args:
        max_chars: from this length on the punishment is full, characters.
        buffer_chars: over how many characters below `max_chars` the punishment grows from nothing.

    Raises:
        ValueError: unless 1 <= buffer_chars <= max_chars.

    Example:
        >>> from vgr_rl.grounding import ImageGeometry, Size, parse_trace
        >>> size = Size(64, 64)
        >>> sample = Sample("1", "doc", "Colour?", "", "none", (), (), size)
        >>> trace = parse_trace("<think>it is red</think>", ImageGeometry(size, size), "model_px")
        >>> Length(max_chars=32, buffer_chars=16)(trace, sample).parts
        {'length': -0.5, 'response_chars': 24.0}
    """

    max_chars: int = 8192
    buffer_chars: int = 2048

    def __post_init__(self) -> None:
        if not 1 <= self.buffer_chars <= self.max_chars:
            raise ValueError(
                f"length.buffer_chars={self.buffer_chars}, length.max_chars={self.max_chars} but "
                "1 <= buffer_chars <= max_chars is needed"
            )

    def __call__(self, trace: Trace, sample: Sample) -> Score:
        """Grade one response."""
        chars = len(trace.text)
        free_chars = self.max_chars - self.buffer_chars
        value = min(max((free_chars - chars) / self.buffer_chars, -1.0), 0.0)
        return Score(value, {"length": value, "response_chars": float(chars)})
