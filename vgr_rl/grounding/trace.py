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

# One match for each tag, or for a whole box without another tag in it; groups are its numbers when it is nothing else.
# Other boxes are put together from their tags. No match can start inside another: the scan is linear.
_NUMBERS = r"\s*\[([0-9]{1,9}),([0-9]{1,9}),([0-9]{1,9}),([0-9]{1,9})\]"
_TAG = re.compile(rf"<(?:box>{_NUMBERS}</box>|box>[^<]*+</box>|/?(?:box|think|answer)>)")
_OPENED_BOX = re.compile(rf"<box>{_NUMBERS}")

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
        boxes: the valid boxes in order of appearance, repeats included.
        malformed: how many `<box>` openers gave no box; everything after the last closing tag counts once.
        think_span: where the text of the first `<think>…</think>` stands, without its tags, or None.
        answer_span: the same for the first `<answer>…</answer>`.
        answers: how many `<answer>…</answer>` the response has.
        tags: how many think and answer tags it has in all, opening and closing.
        masks: the predicted masks, one for each `[SEG]` in order, or None when none were made for this response. An
            entry is None when that one mask could not be decoded.
    """

    text: str
    boxes: tuple[TracedBox, ...]
    malformed: int
    think_span: Span | None
    answer_span: Span | None
    answers: int
    tags: int
    masks: tuple[Rle | None, ...] | None

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
        if self.answer_span is None or self.answers != 1:
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
    boxes, malformed, spans, answers, tags = _scan(text, geometry.orig_px_per_unit(frame), max_boxes)
    kept_masks = None if masks is None else tuple(masks)
    return Trace(
        text, tuple(boxes), malformed, spans.get("</think>"), spans.get("</answer>"), answers, tags, kept_masks
    )


def _scan(
    text: str, scale: tuple[float, float], max_boxes: int
) -> tuple[list[TracedBox], int, dict[str, Span], int, int]:
    """Find boxes, thinking and answers, each independently of the others: a box may hold an answer.

    Returns:
        The boxes, the number of malformed ones, the spans of the first thinking and the first answer by their
        closing tags, the number of answers, and that of think and answer tags.
    """
    scale_x, scale_y = scale
    boxes: list[TracedBox] = []
    spans: dict[str, Span] = {}
    begins: dict[str, int] = {}  # where the text of a think or an answer begins that waits for its closing tag
    malformed = tags = answers = 0
    start = -1  # of the box that waits for its closing tag
    for match in _TAG.finditer(text):
        left, top, right, bottom = match.groups()
        if left is None:
            tag = match[0]
            if tag == "<box>":
                start = match.start() if start < 0 else start
                continue
            if not tag.endswith("box>"):
                tags += 1
                if tag == "<think>" or tag == "<answer>":
                    begins.setdefault(tag, match.end())
                elif (begin := begins.pop(f"<{tag[2:]}", None)) is not None:
                    answers += tag == "</answer>"
                    spans.setdefault(tag, (begin, match.start()))
                continue
            if start < 0:
                if tag == "</box>":
                    continue
                start = match.start()
        span = match.span()
        if start >= 0:  # whatever this is, its end closes the open box
            span, opened, start = (start, match.end()), _OPENED_BOX.match(text, start), -1
            if opened is None:
                malformed += 1
                continue
            left, top, right, bottom = opened.groups()
        x1, y1, x2, y2 = box_frame = int(left), int(top), int(right), int(bottom)
        if x1 < x2 and y1 < y2 and len(boxes) < max_boxes:
            box_orig_px = (x1 * scale_x, y1 * scale_y, x2 * scale_x, y2 * scale_y)
            boxes.append(TracedBox(box_orig_px, box_frame, span))
        else:
            malformed += 1
    return boxes, malformed + (start >= 0), spans, answers, tags
