"""Turn a response into a trace: its thinking, its answer and the boxes it points at.

The parser is total (no string makes it raise), reads the tags of the text in one scan, and keeps at most `max_boxes`
boxes.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from vgr_rl.grounding.frames import Box, Frame, ImageGeometry
from vgr_rl.grounding.masks import Rle

SEG = "[SEG]"
"""The token that stands for one predicted mask (VRT, arXiv 2512.05091)."""

# One match for each tag. An opening box tag takes along the numbers behind it, and its closing tag where nothing stands
# between; any other tag gives its name. No alternative can start inside another, so the scan is linear.
_TAG = re.compile(
    r"<(?:box>\s*\[([0-9]{1,9}),([0-9]{1,9}),([0-9]{1,9}),([0-9]{1,9})\](</box>)?|(/?(?:box|think|answer))>)"
)
_CLOSED, _NAME = 5, 6  # groups: the last one that matched tells the three cases apart

Span = tuple[int, int]
"""First and one-past-last character of a piece of `Trace.text`."""


class TracedBox(NamedTuple):
    """One box of a response.

    Attributes:
        box_orig_px: in pixels of the stored image, not clipped to it.
        box_frame: the four integers as written, in the model's frame.
        span: where `<box>…</box>` stands in `Trace.text`.
    """

    box_orig_px: Box
    box_frame: tuple[int, int, int, int]
    span: Span


class Trace(NamedTuple):
    """A parsed response.

    Attributes:
        text: the response with the prefill restored.
        think: stripped text of the first `<think>…</think>`, or None.
        answer: stripped text of the first `<answer>…</answer>`, or None.
        boxes: the valid boxes in order of appearance, repeats included.
        malformed: how many `<box>` openers gave no box; everything after the last closing tag counts once.
        seg_reasoning: which `[SEG]` tokens of the response (0 for the first) stand before the answer.
        seg_answer: which of them stand inside the answer. Both are empty unless there is exactly one answer.
        segs: how many `[SEG]` tokens the response has in all.
        tags: how many think and answer tags the response has in all, opening and closing.
        think_span: where `think` stands, from the end of its opening tag to its closing tag, or None.
        answer_span: the same for `answer`.
        masks: the predicted masks, one for each `[SEG]` in order, or None when none were made for this response. An
            entry is None when that one mask could not be decoded.
    """

    text: str
    think: str | None
    answer: str | None
    boxes: tuple[TracedBox, ...]
    malformed: int
    seg_reasoning: tuple[int, ...]
    seg_answer: tuple[int, ...]
    segs: int
    tags: int
    think_span: Span | None
    answer_span: Span | None
    masks: tuple[Rle | None, ...] | None


def parse_trace(
    response: str,
    geometry: ImageGeometry,
    frame: Frame,
    *,
    prefill: str = "<think>",
    max_boxes: int = 4096,
    masks: Sequence[Rle | None] | None = None,
) -> Trace:
    """Parse a response by the rules of TreeVGR's released code (arXiv 2507.07999).

    A box is `<box>…</box>` up to the nearest closing tag, whose text starts with `[x1,y1,x2,y2]`: non-negative
    integers of at most nine digits, no spaces, x1 < x2 and y1 < y2. Boxes are neither clipped to the image nor made
    unique. The answer is the first `<answer>…</answer>`. A box is a finite box: signs, fractions, exponents, `nan` and
    `inf` make it malformed.

    Args:
        response: the decoded response; any string.
        geometry: sizes of the image, to map boxes to pixels of the stored image.
        frame: what the model writes. "orig_px" takes the numbers as they are, which is what the authors' own code
            does although their model reads a resized image.
        prefill: text that the prompt already ended with; put back in front unless the response starts with it.
        max_boxes: boxes past this many count as malformed.
        masks: what a segmenter made of the response, one entry for each `[SEG]` in order; stored as it is, whatever its
            length.

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
    found = _scan(text, geometry.orig_px_per_unit(frame), max_boxes)
    think = found.spans["think"][0] if found.spans["think"] else None
    answer = found.spans["answer"][0] if found.spans["answer"] else None
    segs = text.count(SEG)
    seg_reasoning, seg_answer = _split_segs(text, found.spans["answer"]) if segs else ((), ())
    return Trace(
        text,
        text[think[0] : think[1]].strip() if think else None,
        text[answer[0] : answer[1]].strip() if answer else None,
        tuple(found.boxes),
        found.malformed,
        seg_reasoning,
        seg_answer,
        segs,
        found.tags,
        think,
        answer,
        None if masks is None else tuple(masks),
    )


class _Found(NamedTuple):
    boxes: list[TracedBox]
    malformed: int
    tags: int
    spans: dict[str, list[Span]]


def _scan(text: str, scale: tuple[float, float], max_boxes: int) -> _Found:
    """Find boxes, thinking and answers, each independently of the others: a box may hold an answer."""
    scale_x, scale_y = scale
    boxes: list[TracedBox] = []
    spans: dict[str, list[Span]] = {"think": [], "answer": []}
    begins: dict[str, int] = {}  # of a think or an answer that waits for its closing tag
    opener: re.Match[str] | None = None  # of the box that waits for its closing tag
    malformed = tags = 0
    for match in _TAG.finditer(text):
        last = match.lastindex
        if last == _NAME:
            name = match[_NAME]
            if name == "box":
                opener = opener or match
                continue
            if name != "/box":
                tags += 1
                if name[0] != "/":
                    begins.setdefault(name, match.end())
                elif (begin := begins.pop(name[1:], None)) is not None:
                    spans[name[1:]].append((begin, match.start()))
                continue
            if opener is None:
                continue
        else:
            opener = opener or match
            if last != _CLOSED:
                continue
        left, top, right, bottom, _, _ = opener.groups()
        malformed += 1
        if left is not None and len(boxes) < max_boxes:
            x1, y1, x2, y2 = box_frame = int(left), int(top), int(right), int(bottom)
            if x1 < x2 and y1 < y2:
                box_orig_px = (x1 * scale_x, y1 * scale_y, x2 * scale_x, y2 * scale_y)
                boxes.append(TracedBox(box_orig_px, box_frame, (opener.start(), match.end())))
                malformed -= 1
        opener = None
    return _Found(boxes, malformed + (opener is not None), tags, spans)


def _split_segs(text: str, answers: Sequence[Span]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return which `[SEG]` tokens stand before and which inside the only answer."""
    if len(answers) != 1:
        return (), ()
    start, end = answers[0]
    before, inside = text.count(SEG, 0, start), text.count(SEG, start, end)
    return tuple(range(before)), tuple(range(before, before + inside))
