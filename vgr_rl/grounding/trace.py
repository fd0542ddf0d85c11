"""Turn a response into a trace: its thinking, its answer and the boxes it points at.

The parser is total (no string makes it raise), runs in time linear in the text, and keeps at most `max_boxes` boxes.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from vgr_rl.grounding.frames import Box, Frame, ImageGeometry
from vgr_rl.grounding.masks import Rle

# Lazy matching is quadratic on openers that are never closed: only search up to the last closer of the text.
_BOX = re.compile(
    r"<box>(?:\s*\[([0-9]{1,9}),([0-9]{1,9}),([0-9]{1,9}),([0-9]{1,9})\])?.*?</box>",
    re.DOTALL,
)
SEG = "[SEG]"
"""The token that stands for one predicted mask (VRT, arXiv 2512.05091)."""


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
        segs: how many `[SEG]` tokens the response has in all.
        think_span: first and one-past-last character in `text` of what stands between the tags of `think`, or None.
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
    segs: int = 0
    think_span: tuple[int, int] | None = None
    answer_span: tuple[int, int] | None = None
    masks: tuple[Rle | None, ...] | None = None


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
    unique. The answer is the first `<answer>…</answer>`.

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
    think, answer = _span(text, "<think>", "</think>"), _span(text, "<answer>", "</answer>")
    boxes, malformed = _boxes(text, geometry, frame, max_boxes)
    seg_reasoning, seg_answer = _segs(text, answer)
    return Trace(
        text=text,
        think=None if think is None else text[think[0] : think[1]].strip(),
        answer=None if answer is None else text[answer[0] : answer[1]].strip(),
        boxes=boxes,
        malformed=malformed,
        seg_reasoning=seg_reasoning,
        seg_answer=seg_answer,
        segs=text.count(SEG),
        think_span=think,
        answer_span=answer,
        masks=None if masks is None else tuple(masks),
    )


def _span(text: str, opener: str, closer: str, start: int = 0) -> tuple[int, int] | None:
    """Return the span between the first opener at or after `start` and the nearest closer, or None."""
    if (found := text.find(opener, start)) < 0:
        return None
    end = text.find(closer, found + len(opener))
    return None if end < 0 else (found + len(opener), end)


def _segs(text: str, answer: tuple[int, int] | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return which `[SEG]` tokens stand before and which inside the only answer."""
    if answer is None or SEG not in text or _span(text, "<answer>", "</answer>", start=answer[1]) is not None:
        return (), ()
    before, inside = text.count(SEG, 0, answer[0]), text.count(SEG, *answer)
    return tuple(range(before)), tuple(range(before, before + inside))


def _boxes(text: str, geometry: ImageGeometry, frame: Frame, max_boxes: int) -> tuple[tuple[TracedBox, ...], int]:
    scale_x, scale_y = geometry.orig_px_per_unit(frame)
    boxes: list[TracedBox] = []
    malformed = 0
    closed = text.rfind("</box>") + len("</box>") if "</box>" in text else 0
    for match in _BOX.finditer(text, 0, closed):
        if match.lastindex is None or len(boxes) == max_boxes:
            malformed += 1
            continue
        x1, y1, x2, y2 = map(int, match.groups())
        if x1 < x2 and y1 < y2:
            box_orig_px = (x1 * scale_x, y1 * scale_y, x2 * scale_x, y2 * scale_y)
            boxes.append(TracedBox(box_orig_px, (x1, y1, x2, y2), match.span()))
        else:
            malformed += 1
    return tuple(boxes), malformed + ("<box>" in text[closed:])
