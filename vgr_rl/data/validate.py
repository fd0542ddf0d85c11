"""Checks of a data set before anything expensive starts: every fault with its file, row, field, value and knob.

Images are checked by their headers; the pixels are decoded when a rollout needs them.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from rewards.answers import choice_letter
from vgr_rl.data.images import upright_size
from vgr_rl.data.schema import IMAGE_TAG, SAMPLE_SCHEMA, read_records, resolve_image, sample_from_json
from vgr_rl.errors import ConfigError, bullet_list
from vgr_rl.grounding.frames import Size
from vgr_rl.grounding.masks import check_rle
from vgr_rl.grounding.sample import Sample, Target
from vgr_rl.grounding.trace import SEG

SHOWN_PROBLEMS = 20
_LONGEST_VALUE = 80
ROLES = ("system", "user", "assistant")
_SFT_COLUMNS = ("id", "messages", "images")


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of a data set.

    Attributes:
        file: the parquet file.
        row: index of the row, or None when the whole file is meant.
        field: dotted name of the field.
        value: what is there, shortened.
        reason: what is wrong with it.
        knob: the setting that named the file.
    """

    file: str
    row: int | None
    field: str
    value: str
    reason: str
    knob: str

    def __str__(self) -> str:
        return f"{self.fault} ({self.knob})"

    @property
    def fault(self) -> str:
        """What is wrong, without the knob."""
        where = self.file if self.row is None else f"{self.file}, row {self.row}"
        return f"{where}: {self.field}={self.value} {self.reason}"


class DataError(ConfigError):
    """A data set has faults; `problems` holds all of them, the message the first ones and their number by field."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        fields = Counter(problem.field for problem in problems)
        summary = ", ".join(f"{field} {count}" for field, count in fields.most_common())
        shared = len(problems) > 1 and len({problem.knob for problem in problems}) == 1
        told = [problem.fault if shared else str(problem) for problem in problems]
        once = f"; {problems[0].knob}" if shared else ""
        count = f"{len(problems)} fault{'' if len(problems) == 1 else 's'}"
        super().__init__(f"{count} in the data ({summary}){once}:\n{bullet_list(told, limit=SHOWN_PROBLEMS)}")


Fault = tuple[str, Any, str]
"""Field, value and reason."""


def as_problem(path: Path, row: int | None, fault: Fault, knob: str) -> Problem:
    """Place a fault in its file; a long value is shortened."""
    field, value, reason = fault
    shown = repr(value)
    shown = shown if len(shown) <= _LONGEST_VALUE else f"{shown[:_LONGEST_VALUE]}…"
    return Problem(str(path), row, field, shown, reason, knob)


def check_samples(path: str | Path, knob: str = "data.train_files", limit: int | None = None) -> list[Problem]:
    """List the faults of a file of RL samples; `limit` checks the first rows only."""
    return list(_faults(Path(path), SAMPLE_SCHEMA.names, _sample_faults, knob, limit))


def check_sft(path: str | Path, knob: str = "data.train_files", limit: int | None = None) -> list[Problem]:
    """List the faults of a file of SFT conversations; `limit` checks the first rows only."""
    return list(_faults(Path(path), _SFT_COLUMNS, _conversation_faults, knob, limit))


def require_samples(paths: Sequence[str | Path], knob: str = "data.train_files", limit: int | None = None) -> None:
    """Check files of RL samples.

    Raises:
        DataError: listing the faults of all files.
    """
    _raise_if_any([problem for path in paths for problem in check_samples(path, knob, limit)])


def require_sft(paths: Sequence[str | Path], knob: str = "data.train_files", limit: int | None = None) -> None:
    """Check files of SFT conversations.

    Raises:
        DataError: listing the faults of all files.
    """
    _raise_if_any([problem for path in paths for problem in check_sft(path, knob, limit)])


def box_fault(target: Target, sample: Sample) -> str | None:
    """Say what is wrong with a target's box in its image; None when nothing is."""
    if target.box_orig_px is None:
        return None
    x1, y1, x2, y2 = target.box_orig_px
    if not all(map(math.isfinite, target.box_orig_px)):
        return "is not finite"
    if x1 >= x2 or y1 >= y2:
        return "is reversed or empty: x1 < x2 and y1 < y2 are needed"
    width, height = sample.image_size
    if x1 < 0 or y1 < 0 or x2 > width or y2 > height:
        return f"leaves the image of {width}x{height} px"
    return None


def answer_fault(sample: Sample) -> str | None:
    """Say what is wrong with a sample's answer; None when nothing is."""
    if sample.answer_kind != "none" and not sample.answer.strip():
        return f"is empty though answer_kind is {sample.answer_kind!r}"
    if sample.answer_kind == "choice" and choice_letter(sample.answer, sample.options) is None:
        return f"names none of the options {list(sample.options)}" if sample.options else "is no option's letter"
    return None


def _raise_if_any(problems: Sequence[Problem]) -> None:
    if problems:
        raise DataError(problems)


def _faults(path: Path, columns: Sequence[str], check: Any, knob: str, limit: int | None) -> Iterator[Problem]:
    def problem(row: int | None, fault: Fault) -> Problem:
        return as_problem(path, row, fault, knob)

    try:
        records = read_records(path)
        first = next(records, None)
    except ValueError as error:
        yield problem(None, ("file", str(path), str(error).removeprefix(f"{path}: ")))
        return
    present = pq.read_schema(path).names
    missing = [name for name in columns if name not in present]
    for name in missing:
        yield problem(None, (name, "(absent)", f"is a required column; the file has {', '.join(present)}"))
    if first is None:
        yield problem(None, ("rows", 0, "leaves nothing to train on"))
    if missing or first is None:
        return
    rows_of_id: dict[str, int] = {}
    for row, record in enumerate(itertools.islice(itertools.chain([first], records), limit)):
        yield from (problem(row, fault) for fault in check(record, path.parent))
        if record["id"] in rows_of_id:
            yield problem(row, ("id", record["id"], f"is also the id of row {rows_of_id[record['id']]}"))
        rows_of_id.setdefault(record["id"], row)


def _sample_faults(record: dict[str, Any], folder: Path) -> Iterator[Fault]:
    yield from _missing_values(record, ("id", "data_source", "prompt", "images", "reward_model", "extra_info"))
    yield from _message_faults("prompt", record["prompt"], len(record["images"] or ()), last_role="user")
    text = (record["extra_info"] or {}).get("sample")
    if not text:
        yield "extra_info.sample", text, "is missing"
        return
    try:
        sample = sample_from_json(text)
    except ValueError as error:
        yield "extra_info.sample", text, f"cannot be read: {error}"
        return
    if sample.id != record["id"]:
        yield "extra_info.sample.id", sample.id, f"differs from the row's id {record['id']!r}"
    if reason := answer_fault(sample):
        yield "extra_info.sample.answer", sample.answer, reason
    for index, target in enumerate(sample.targets):
        reason = box_fault(target, sample)
        if reason:
            yield f"extra_info.sample.targets[{index}].box_orig_px", list(target.box_orig_px or ()), reason
    size_field = ("extra_info.sample.image_size", sample.image_size)
    yield from _image_faults(record["images"] or [], folder, expected_first=size_field)


def _conversation_faults(record: dict[str, Any], folder: Path) -> Iterator[Fault]:
    yield from _missing_values(record, ("id", "messages", "images"))
    yield from _message_faults("messages", record["messages"], len(record["images"] or ()), last_role="assistant")
    yield from _image_faults(record["images"] or [], folder)
    if record.get("masks") is not None:
        yield from _mask_faults(record, folder)


def _mask_faults(record: dict[str, Any], folder: Path) -> Iterator[Fault]:
    masks = record["masks"]
    segs = sum((m["content"] or "").count(SEG) for m in record["messages"] or () if m["role"] == "assistant")
    if segs != len(masks):
        yield "masks", f"{len(masks)} masks", f"but the responses have {segs} {SEG}"
    try:
        size: Size | None = upright_size(resolve_image((record["images"] or [{}])[0], folder))
    except ValueError:
        size = None  # a fault of the image
    for index, mask in enumerate(masks):
        try:
            check_rle(mask, size)
        except ValueError as error:
            yield f"masks[{index}]", mask, f"cannot be used: {error}"


def _missing_values(record: dict[str, Any], fields: Sequence[str]) -> Iterator[Fault]:
    for field in fields:
        if record[field] is None or record[field] == []:
            yield field, record[field], "is missing"


def _message_faults(field: str, messages: Any, images: int, last_role: str) -> Iterator[Fault]:
    for index, message in enumerate(messages or ()):
        if message["role"] not in ROLES:
            yield f"{field}[{index}].role", message["role"], f"is not one of {', '.join(ROLES)}"
        if not message["content"]:
            yield f"{field}[{index}].content", message["content"], "is empty"
    if messages and messages[-1]["role"] != last_role:
        yield f"{field}[{len(messages) - 1}].role", messages[-1]["role"], f"must be {last_role!r} in the last message"
    tags = sum((message["content"] or "").count(IMAGE_TAG) for message in messages or ())
    if messages and tags != images:
        yield field, f"{tags} {IMAGE_TAG} tags", f"but the row has {images} images"


def _image_faults(
    images: Sequence[dict[str, Any]], folder: Path, expected_first: tuple[str, Any] | None = None
) -> Iterator[Fault]:
    for index, image in enumerate(images):
        try:
            size = upright_size(resolve_image(image, folder))
        except ValueError as error:
            yield f"images[{index}]", image.get("path") or "(bytes)", str(error)
            continue
        if index == 0 and expected_first is not None and size != expected_first[1]:
            yield expected_first[0], list(expected_first[1]), f"but the image is {size.width}x{size.height} px"
