"""The format reward of TreeVGR (arXiv 2507.07999): 1 when the response thinks, then answers, else 0."""

from dataclasses import dataclass

from rewards.score import Score
from vgr_rl.grounding.sample import Sample
from vgr_rl.grounding.trace import Trace


@dataclass(frozen=True, slots=True)
class Format:
    """Grade the response's shape: part `format`, 0 or 1.

    Right is `<think>…</think><answer>…</answer>`: each of the four tags exactly once, in this order, with nothing but
    white space before, between and after the two pairs. The opening `<think>` that a prompt prefills is restored by
    the parser, so it is graded like one the model wrote.

    Example:
        >>> from vgr_rl.grounding import ImageGeometry, Size, parse_trace
        >>> size = Size(64, 64)
        >>> sample = Sample("1", "doc", "Colour?", "B", "choice", ("blue", "red"), (), size)
        >>> trace = parse_trace("it is red</think> <answer>B</answer>", ImageGeometry(size, size), "model_px")
        >>> Format()(trace, sample).value
        1.0
    """

    def __call__(self, trace: Trace, sample: Sample) -> Score:
        """Grade one response."""
        value = float(think_then_answer(trace.text))
        return Score(value, {"format": value})


def think_then_answer(text: str) -> bool:
    """Say whether a text is one think pair and one answer pair, in order, and nothing else; linear in the text."""
    text = text.strip()
    think_end, answer = text.find("</think>"), text.find("<answer>")
    return (
        text.startswith("<think>")
        and text.endswith("</answer>")
        and 0 < think_end < answer
        and not text[think_end + len("</think>") : answer].strip()
        and text.count("<think>") == text.count("</think>") == text.count("<answer>") == text.count("</answer>") == 1
    )
