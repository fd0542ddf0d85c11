"""Responses beside their pictures: which box stands where, in the text and on the image."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rewards.answers import choice_letter
from vgr_rl.grounding import ImageGeometry, Size, iou_matrix, parse_trace
from vgr_rl.viewer.pictures import Picture, picture

COLOURS = 6  # of predicted boxes, in turn; the style sheet names them
_MAX_BOXES = 48
_MAX_CHARACTERS = 4000
_TAG = re.compile(r"(</?(?:think|answer)>)")


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of response text. `box` is the number of the box it writes (from 0) or None; `tag`: a protocol tag."""

    text: str
    box: int | None = None
    tag: bool = False


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A box on a picture, in pixels of the stored image; `iou` is its best overlap with a true box."""

    x: float
    y: float
    width: float
    height: float
    number: int = 0
    iou: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One response: what was written, what was drawn, what it earned."""

    title: str
    pieces: tuple[Piece, ...]
    omitted: str
    predicted: tuple[Rectangle, ...]
    right: bool | None
    given: str
    score: str
    parts: tuple[tuple[str, str], ...]
    length: int


@dataclass(frozen=True, slots=True)
class Card:
    """One question about one picture with one or more responses."""

    id: str
    source: str
    question: str
    options: tuple[str, ...]
    answer: str
    picture: Picture
    truth: tuple[Rectangle, ...]
    panels: tuple[Panel, ...]


def card(rows: Sequence[Mapping[str, Any]], titles: Sequence[str]) -> Card:
    """Build the card of several responses to one question; rows are as in `samples.jsonl`."""
    first = rows[0]
    return Card(
        id=str(first["id"]),
        source=str(first.get("data_source", "")),
        question=str(first.get("question", "")).replace("<image>", "").strip(),
        options=_labelled(first.get("options") or ()),
        answer=str(first.get("answer", "")),
        picture=picture(first.get("image"), Size(*first["image_size"])),
        truth=tuple(_rectangle(box) for box in first.get("targets_orig_px") or ()),
        panels=tuple(_panel(row, title) for row, title in zip(rows, titles, strict=True)),
    )


def _panel(row: Mapping[str, Any], title: str) -> Panel:
    size = Size(*row["image_size"])
    trace = parse_trace(str(row["response"]), ImageGeometry(size, size), "orig_px")
    boxes = [tuple(box) for box in row["boxes_orig_px"]]
    overlaps = iou_matrix(boxes, [tuple(box) for box in row.get("targets_orig_px") or ()])
    accuracy = row["parts"].get("accuracy")
    shown = trace.text[:_MAX_CHARACTERS]
    hidden = len(trace.text) - len(shown)
    more_boxes = len(boxes) - _MAX_BOXES
    omitted = [f"{hidden} more characters"] * (hidden > 0) + [f"{more_boxes} more boxes not drawn"] * (more_boxes > 0)
    return Panel(
        title=title,
        pieces=tuple(_pieces(shown, [box.span for box in trace.boxes][:_MAX_BOXES])),
        omitted=", ".join(omitted),
        predicted=tuple(
            _rectangle(box, number, f"{max(overlap):.2f}" if overlap else "")
            for number, (box, overlap) in enumerate(zip(boxes[:_MAX_BOXES], overlaps, strict=False))
        ),
        right=None if accuracy is None else accuracy >= 1.0,
        given=_given(trace.answer, row.get("options") or ()),
        score="not scored" if row.get("score") is None else f"{row['score']:.2f}",
        parts=tuple((name, f"{value:.2f}".removesuffix(".00")) for name, value in _shown_parts(row)),
        length=int(row.get("length", 0)),
    )


def _shown_parts(row: Mapping[str, Any]) -> list[tuple[str, float]]:
    parts = [(name.replace("_iou", " IoU"), value) for name, value in row["parts"].items() if name != "boxes"]
    advantage = row.get("advantage")
    return parts if advantage is None else [*parts, ("advantage", advantage)]


def _pieces(text: str, spans: Sequence[tuple[int, int]]) -> list[Piece]:
    pieces: list[Piece] = []
    position = 0
    for number, (start, end) in enumerate(spans):
        if end > len(text):
            break
        pieces.extend(_tagged(text[position:start]))
        pieces.append(Piece(text[start:end], box=number))
        position = end
    return [*pieces, *_tagged(text[position:])]


def _tagged(text: str) -> list[Piece]:
    return [Piece(run, tag=index % 2 == 1) for index, run in enumerate(_TAG.split(text)) if run]


def _rectangle(box: Sequence[float], number: int = 0, iou: str = "") -> Rectangle:
    x1, y1, x2, y2 = box
    return Rectangle(round(x1, 2), round(y1, 2), round(x2 - x1, 2), round(y2 - y1, 2), number, iou)


def _labelled(options: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{chr(ord('A') + index)}. {option}" for index, option in enumerate(options))


def _given(answer: str | None, options: Sequence[str]) -> str:
    if answer is None:
        return "none"
    letter = choice_letter(answer, options) if options else None
    return letter or (answer if len(answer) <= 60 else answer[:60] + "…")
