"""Turn a response into a trace: its thinking, its answer and the boxes it points at.

The parser is total (no string makes it raise), runs in time linear in the text, and keeps at most `max_boxes` boxes.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from vgr_rl.grounding.frames import Box, Frame, ImageGeometry
from vgr_rl.grounding.masks import Rle

SEG = "[SEG]"
"""The token that stands for one predicted mask (VRT, arXiv 2512.05091)."""

# A box up to the nearest closing tag, with its numbers as groups when it starts with them; most are closed right behind
# them. Lazy matching is quadratic on openers that are never closed: only search up to the last closer of the text.
_BOX = re.compile(
    r"<box>(?:\s*\[([0-9]{1,9}),([0-9]{1,9}),([0-9]{1,9}),([0-9]{1,9})\])?(?:</box>|.*?</box>)", re.DOTALL
)

Span = tuple[int, int]
"""First and one-past-last character of a piece of `Trace.text`."""


class TracedBox(NamedTuple):
    """One box of a response.

    Attributes:
        box_orig_px: in pixels of the stored image, not clipped to it.
        span: where `<box>…</box>` stands in `Trace.text`.
    """

    box_orig_px: Box
    span: Span


class Trace(NamedTuple):
    """A parsed response.

    Attributes:
        text: the response with the prefill restored.
        boxes: the valid boxes in order of appearance, repeats included.
        malformed: how many `<box>` openers gave no box; everything after the last closing tag counts once.
        think_span: where the text of the first `<think>…</think>` stands, without its tags, or None.
        answer_span: the same for the first `<answer>…</answer>`.
        masks: the predicted masks, one for each `[SEG]` in order, or None when none were made for this response. An
            entry is None when that one mask could not be decoded.
        box_masks: what a segmenter made of each of `boxes`, or None when none were made.
    """

    text: str
    boxes: tuple[TracedBox, ...]
    malformed: int
    think_span: Span | None
    answer_span: Span | None
    masks: tuple[Rle | None, ...] | None
    box_masks: tuple[Rle, ...] | None = None

    @property
    def think(self) -> str | None:
        """Stripped text of the first `<think>…</think>`, or None."""
        return None if self.think_span is None else self.text[slice(*self.think_span)].strip()

    @property
    def answer(self) -> str | None:
        """Stripped text of the first `<answer>…</answer>`, or None."""
        return None if self.answer_span is None else self.text[slice(*self.answer_span)].strip()

    @property
    def segs(self) -> int:
        """How many `[SEG]` tokens the response has in all."""
        return self.text.count(SEG)

    @property
    def seg_reasoning(self) -> tuple[int, ...]:
        """Which `[SEG]` tokens (0 for the first) stand before the answer; empty unless there is exactly one answer."""
        return self._seg_ranges()[0]

    @property
    def seg_answer(self) -> tuple[int, ...]:
        """Which `[SEG]` tokens stand inside the answer; empty unless there is exactly one answer."""
        return self._seg_ranges()[1]

    def _seg_ranges(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        if self.answer_span is None or _first(self.text, "<answer>", "</answer>", self.answer_span[1]) is not None:
            return (), ()
        before, inside = self.text.count(SEG, 0, self.answer_span[0]), self.text.count(SEG, *self.answer_span)
        return tuple(range(before)), tuple(range(before, before + inside))


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
    boxes, malformed = _boxes(text, geometry.orig_px_per_unit(frame), max_boxes)
    think_span, answer_span = _first(text, "<think>", "</think>"), _first(text, "<answer>", "</answer>")
    return Trace(text, boxes, malformed, think_span, answer_span, None if masks is None else tuple(masks))


def _first(text: str, opener: str, closer: str, start: int = 0) -> Span | None:
    """Return where the text between the first opener at or after `start` and the nearest closer stands."""
    if (found := text.find(opener, start)) < 0:
        return None
    begin = found + len(opener)
    end = text.find(closer, begin)
    return None if end < 0 else (begin, end)


def _boxes(text: str, scale: tuple[float, float], max_boxes: int) -> tuple[tuple[TracedBox, ...], int]:
    """Return the boxes and the number of malformed ones."""
    scale_x, scale_y = scale
    boxes: list[TracedBox] = []
    malformed = 0
    last_closer = text.rfind("</box>")
    for match in _BOX.finditer(text, 0, last_closer + len("</box>")):
        left, top, right, bottom = match.groups()
        if left is None or len(boxes) == max_boxes:
            malformed += 1
            continue
        x1, y1, x2, y2 = float(left), float(top), float(right), float(bottom)
        if x1 < x2 and y1 < y2:
            box_orig_px = (x1 * scale_x, y1 * scale_y, x2 * scale_x, y2 * scale_y)
            boxes.append(TracedBox._make((box_orig_px, match.span())))  # half the time of TracedBox(…)
        else:
            malformed += 1
    return tuple(boxes), malformed + (text.find("<box>", max(last_closer, 0)) >= 0)
