"""Turn a response into a trace: its thinking, its answer and the boxes it points at.

The parser is total (no string makes it raise), runs in time linear in the text, and keeps at most `max_boxes` boxes.
It scans with `str.find`: a regular expression such as `<box>.*?</box>` is quadratic on many unclosed openers.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from vgr_rl.grounding.frames import Box, Frame, ImageGeometry

_COORDINATES = re.compile(r"\s*\[([0-9]{1,9}),([0-9]{1,9}),([0-9]{1,9}),([0-9]{1,9})\]")
_SEG = "[SEG]"


@dataclass(frozen=True, slots=True)
class TracedBox:
    """One box of a response.

    Attributes:
        box_orig_px: in pixels of the stored image, not clipped to it.
        box_frame: the four integers as written, in the model's frame.
        span: first and one-past-last character of `<box>…</box>` in `Trace.text`.
    """

    box_orig_px: Box
    box_frame: tuple[int, int, int, int]
    span: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Trace:
    """A parsed response.

    Attributes:
        text: the response with the prefill restored.
        think: stripped text of the first `<think>…</think>`, or None.
        answer: stripped text of the first `<answer>…</answer>`, or None.
        boxes: the valid boxes in order of appearance, repeats included.
        malformed: how many `<box>` openers gave no box; everything after the last closing tag counts once.
        seg_reasoning: which `[SEG]` tokens of the response (0 for the first) stand before the answer.
        seg_answer: which of them stand inside the answer. Both are empty unless there is exactly one answer.
    """

    text: str
    think: str | None
    answer: str | None
    boxes: tuple[TracedBox, ...]
    malformed: int
    seg_reasoning: tuple[int, ...]
    seg_answer: tuple[int, ...]


def parse_trace(
    response: str, geometry: ImageGeometry, frame: Frame, *, prefill: str = "<think>", max_boxes: int = 4096
) -> Trace:
    """Parse a response by the rules of TreeVGR's released code (arXiv 2507.07999).

    A box is `<box>…</box>` up to the nearest closing tag, whose text starts with `[x1,y1,x2,y2]`: non-negative
    integers of at most nine digits, no spaces, x1 < x2 and y1 < y2. Boxes are neither clipped to the image nor made
    unique. The answer is the first `<answer>…</answer>`.

    Args:
        response: the decoded response; any string.
        geometry: sizes of the image, to map boxes to pixels of the stored image.
        frame: what the model writes. "orig_px" takes the numbers as they are, which is what the authors' own code
            does although their model reads a resized image.
        prefill: text that the prompt already ended with; put back in front unless the response starts with it.
        max_boxes: boxes past this many count as malformed.

    Raises:
        ValueError: when `frame` is unknown; never because of `response`.

    Example:
        >>> from vgr_rl.grounding import Size
        >>> geometry = ImageGeometry(Size(100, 100), Size(200, 200))
        >>> trace = parse_trace("a cat <box>[20,40,60,80]</box></think><answer>A</answer>", geometry, "model_px")
        >>> trace.boxes[0].box_orig_px, trace.answer
        ((10.0, 20.0, 30.0, 40.0), 'A')
    """
    text = response
    if prefill and not response.lstrip().startswith(prefill):
        text = prefill + response
    think = next(_tag_spans(text, "think"), None)
    answers = _tag_spans(text, "answer")
    answer = next(answers, None)
    boxes, malformed = _boxes(text, geometry, frame, max_boxes)
    seg_reasoning: tuple[int, ...] = ()
    seg_answer: tuple[int, ...] = ()
    if answer is not None and next(answers, None) is None:
        before, inside = text.count(_SEG, 0, answer[0]), text.count(_SEG, *answer)
        seg_reasoning, seg_answer = tuple(range(before)), tuple(range(before, before + inside))
    return Trace(
        text=text,
        think=None if think is None else text[slice(*think)].strip(),
        answer=None if answer is None else text[slice(*answer)].strip(),
        boxes=boxes,
        malformed=malformed,
        seg_reasoning=seg_reasoning,
        seg_answer=seg_answer,
    )


def _tag_spans(text: str, tag: str) -> Iterator[tuple[int, int]]:
    """Yield the spans between `<tag>` and the nearest `</tag>`; each character is looked at once or twice."""
    opener, closer = f"<{tag}>", f"</{tag}>"
    start = text.find(opener)
    while start >= 0:
        start += len(opener)
        end = text.find(closer, start)
        if end < 0:
            return
        yield start, end
        start = text.find(opener, end + len(closer))


def _boxes(text: str, geometry: ImageGeometry, frame: Frame, max_boxes: int) -> tuple[tuple[TracedBox, ...], int]:
    boxes: list[TracedBox] = []
    malformed = 0
    to_orig = geometry.to_orig
    to_orig((0.0, 0.0, 1.0, 1.0), frame)  # an unknown frame is an error even where there is no box
    after = 0
    for start, end in _tag_spans(text, "box"):
        after = end + len("</box>")
        match = _COORDINATES.match(text, start, end)
        if match is None or len(boxes) == max_boxes:
            malformed += 1
            continue
        x1, y1, x2, y2 = map(int, match.groups())
        if x1 < x2 and y1 < y2:
            span = (start - len("<box>"), after)
            boxes.append(TracedBox(to_orig((x1, y1, x2, y2), frame), (x1, y1, x2, y2), span))
        else:
            malformed += 1
    if text.find("<box>", after) >= 0:
        malformed += 1
    return tuple(boxes), malformed
