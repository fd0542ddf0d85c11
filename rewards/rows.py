"""The row format in which responses of any trainer are scored: one JSON object a response in, one out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from rewards.compose import Composed
from vgr_rl.grounding.frames import FRAMES, Box, Frame, ImageGeometry, Size
from vgr_rl.grounding.masks import Rle, check_rle
from vgr_rl.grounding.sample import AnswerKind, Role, Sample, Target
from vgr_rl.grounding.trace import Trace, parse_trace

FIELDS = frozenset(
    "id response answer answer_kind question options image_size model_size frame prefilled targets pred_masks "
    "data_source".split()
)
"""Every field that a row may have; others are not read."""

_TARGET_FIELDS = frozenset({"box", "mask", "name", "role"})
_FAR = 1e9  # pixels; a number beyond it is a mistake, and so are nan and inf, which fail the same comparison


@dataclass(frozen=True, slots=True)
class Row:
    """A checked row: a sample, a response to it, and how to read the response.

    Attributes:
        sample: what the response is graded against.
        response: the text of the model.
        geometry: stored size of the image and the size that the model saw.
        frame: the frame of the boxes in the response.
        prefilled: text that the prompt ended with and that belongs to the response.
        masks: predicted masks, one for each `[SEG]` in order; an entry is None when it could not be decoded.
    """

    sample: Sample
    response: str
    geometry: ImageGeometry
    frame: Frame
    prefilled: str
    masks: tuple[Rle | None, ...] | None

    def trace(self) -> Trace:
        """Parse the response."""
        return parse_trace(self.response, self.geometry, self.frame, prefill=self.prefilled, masks=self.masks)


def read_row(raw: object) -> Row:
    """Check one row; a null counts as a missing field, and fields that are not in `FIELDS` are ignored.

    Args:
        raw: an object with `id`, `response`, `answer` and `answer_kind` ("choice", "open" or "none"; with "none", no
            answer is needed), `image_size` [width, height] in pixels, and `targets`: a list of objects with `box`
            [x1, y1, x2, y2] in pixels of the stored image, `mask` (COCO run lengths at the stored size), `name`, and
            `role` ("evidence" or "answer"), all optional. Optional: `question`, `options` (a list of texts), `frame`
            ("orig_px" when left out, "model_px" or "norm1000"), `model_size` [width, height] (needed with
            "model_px"), `prefilled` (such as "<think>"), `pred_masks` (COCO run lengths or null, one for each
            `[SEG]`), and `data_source` (chooses the terms of `reward.by_source`).

    Raises:
        ValueError: naming the field, its value and what was expected.

    Example:
        >>> row = read_row({
        ...     "id": 1, "response": "a cup <box>[1,2,3,4]</box></think><answer>A</answer>", "prefilled": "<think>",
        ...     "answer": "A", "answer_kind": "choice", "image_size": [64, 48], "targets": [{"box": [1, 2, 3, 4]}],
        ... })
        >>> row.trace().think, row.sample.targets[0].box_orig_px
        ('a cup <box>[1,2,3,4]</box>', (1.0, 2.0, 3.0, 4.0))
    """
    row = _object("row", raw)
    size = _size("image_size", row.get("image_size"))
    frame: Frame = _one_of("frame", row.get("frame"), FRAMES, default="orig_px")
    if frame == "model_px" and row.get("model_size") is None:
        raise ValueError("model_size is missing but frame=model_px needs it: [width, height] that the model saw")
    model_size = size if row.get("model_size") is None else _size("model_size", row["model_size"])
    return Row(
        sample=_sample(row, size),
        response=_text("response", row.get("response")),
        geometry=ImageGeometry(size, model_size),
        frame=frame,
        prefilled=_text("prefilled", row.get("prefilled"), default=""),
        masks=None if row.get("pred_masks") is None else _pred_masks(row["pred_masks"]),
    )


def scored_row(sample: Sample, trace: Trace, composed: Composed) -> dict[str, Any]:
    """Return the output row of a graded response, ready for JSON; its score is null unless its status is ok."""
    return {
        "id": sample.id,
        "score": composed.value if composed.status == "ok" else None,
        "parts": {name: float(value) for name, value in composed.parts.items()},
        "status": {name: score.status for name, score in composed.terms.items()},
        "trace": {
            "think": trace.think,
            "answer": trace.answer,
            "boxes": [list(box.box_orig_px) for box in trace.boxes],
            "malformed": trace.malformed,
        },
    }


def _sample(row: Mapping[str, Any], size: Size) -> Sample:
    kind: AnswerKind = _one_of("answer_kind", row.get("answer_kind"), get_args(AnswerKind))
    identifier = row.get("id")
    if isinstance(identifier, bool) or not isinstance(identifier, int | str):
        raise ValueError(f"id={_shown(identifier)} but expected a text or an integer")
    options = () if row.get("options") is None else _list("options", row["options"])
    return Sample(
        id=str(identifier),
        data_source=_text("data_source", row.get("data_source"), default=""),
        question=_text("question", row.get("question"), default=""),
        answer=_text("answer", row.get("answer"), default="" if kind == "none" else None),
        answer_kind=kind,
        options=tuple(_text(f"options[{index}]", option) for index, option in enumerate(options)),
        targets=tuple(
            _target(f"targets[{index}]", target, size)
            for index, target in enumerate(_list("targets", row.get("targets")))
        ),
        image_size=size,
    )


def _target(where: str, value: object, size: Size) -> Target:
    target = _object(where, value)
    if unknown := [name for name in target if name not in _TARGET_FIELDS]:
        raise ValueError(f"{where} has the field {unknown[0]!r} but expected {', '.join(sorted(_TARGET_FIELDS))}")
    box, mask = target.get("box"), target.get("mask")
    role: Role = _one_of(f"{where}.role", target.get("role"), get_args(Role), default="evidence")
    return Target(
        box_orig_px=None if box is None else _box(f"{where}.box", box, size),
        name=_text(f"{where}.name", target.get("name"), default=""),
        role=role,
        mask_rle=None if mask is None else check_rle(mask, size, where=f"{where}.mask"),
    )


def _pred_masks(value: object) -> tuple[Rle | None, ...]:
    return tuple(
        None if mask is None else check_rle(mask, where=f"pred_masks[{index}]")
        for index, mask in enumerate(_list("pred_masks", value))
    )


def _box(where: str, value: object, size: Size) -> Box:
    x1, y1, x2, y2 = _numbers(where, value, 4, "[x1, y1, x2, y2], four numbers")
    if not (x1 < x2 and y1 < y2):
        raise ValueError(f"{where}={_shown(value)} but expected x1 < x2 and y1 < y2")
    if x1 >= size.width or y1 >= size.height or x2 <= 0 or y2 <= 0:
        raise ValueError(
            f"{where}={_shown(value)} lies outside the image of {size.width}x{size.height}; targets are in pixels of "
            "the stored image, whatever the frame of the response"
        )
    return x1, y1, x2, y2


def _size(where: str, value: object) -> Size:
    expected = "[width, height], two positive whole numbers of pixels"
    width, height = _numbers(where, value, 2, expected)
    if width < 1 or height < 1 or width % 1 or height % 1:
        raise ValueError(f"{where}={_shown(value)} but expected {expected}")
    return Size(int(width), int(height))


def _numbers(where: str, value: object, count: int, expected: str) -> list[float]:
    if not isinstance(value, list | tuple) or len(value) != count or not all(map(_is_number, value)):
        raise ValueError(f"{where}={_shown(value)} but expected {expected}")
    return [float(number) for number in value]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -_FAR <= value <= _FAR


def _object(where: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}={_shown(value)} but expected an object")
    return value


def _list(where: str, value: object) -> Sequence[object]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{where}={_shown(value)} but expected a list")
    return value


def _text(where: str, value: object, *, default: str | None = None) -> str:
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise ValueError(f"{where}={_shown(value)} but expected a text")
    return value


def _one_of(where: str, value: object, allowed: Sequence[str], *, default: str | None = None) -> Any:
    value = default if value is None else value
    if value not in allowed:
        raise ValueError(f"{where}={_shown(value)} but expected one of {', '.join(allowed)}")
    return value


def _shown(value: object, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}…"
