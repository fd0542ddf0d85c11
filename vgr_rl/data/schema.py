"""The two parquet schemas: RL samples (with what verl's RLHFDataset reads) and SFT conversations.

An image is encoded bytes or a path (absolute, or relative to the parquet's folder); it is decoded where it is used.
"""

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from vgr_rl.data.files import replacing
from vgr_rl.grounding.frames import Size
from vgr_rl.grounding.masks import Rle, check_rle
from vgr_rl.grounding.sample import AnswerKind, Role, Sample, Target

IMAGE_TAG = "<image>"
_CHAT = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_IMAGES = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
SAMPLE_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("data_source", pa.string()),
        ("prompt", _CHAT),
        ("images", _IMAGES),
        ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", pa.string())])),
        ("extra_info", pa.struct([("index", pa.int64()), ("split", pa.string()), ("sample", pa.string())])),
    ]
)
_MASKS = pa.list_(pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.string())]))
SFT_SCHEMA = pa.schema([("id", pa.string()), ("messages", _CHAT), ("images", _IMAGES), ("masks", _MASKS)])
_ROWS_A_GROUP = 512

Message = dict[str, str]
ImageRef = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One RL sample with its chat prompt and images; an image is {"bytes": ..., "path": ...}, one of them None."""

    sample: Sample
    prompt: list[Message]
    images: list[ImageRef]


@dataclass(frozen=True, slots=True)
class SftRow:
    """One conversation to imitate.

    Attributes:
        id: unique within its file.
        messages: the conversation; the last message is the assistant's whole response.
        images: its images.
        masks: the true mask of each `[SEG]` of the response, in order, at the size of the first image; None when the
            row is not about masks.
    """

    id: str
    messages: list[Message]
    images: list[ImageRef]
    masks: list[Rle] | None = None


def image_bytes(data: bytes) -> ImageRef:
    """Refer to an image by its encoded bytes."""
    return {"bytes": data, "path": None}


def image_path(path: str | Path) -> ImageRef:
    """Refer to an image by its path."""
    return {"bytes": None, "path": str(path)}


def resolve_image(image: ImageRef, folder: Path) -> ImageRef:
    """Make a relative path absolute against the parquet's folder; bytes stay as they are."""
    if image.get("bytes") is not None or not image.get("path"):
        return image
    return {"bytes": None, "path": str(folder / image["path"])}


def encoded_bytes(image: ImageRef) -> bytes:
    """Return the encoded bytes of an image, read from its path (used as it is) when it has none.

    Raises:
        OSError: the file cannot be read.
    """
    data: bytes | None = image.get("bytes")
    return Path(image["path"]).read_bytes() if data is None else data


def sample_to_json(sample: Sample) -> str:
    """Serialise a sample, without pixels; equal samples give equal text."""
    return json.dumps(dataclasses.asdict(sample), sort_keys=True, ensure_ascii=False)


def sample_from_json(text: str) -> Sample:
    """Read a sample back.

    Raises:
        ValueError: naming the field that is missing or malformed.
    """
    raw = json.loads(text)
    if not isinstance(raw, dict):
        raise ValueError(f"sample must be a JSON object, not {type(raw).__name__}")
    missing = [f.name for f in dataclasses.fields(Sample) if f.name not in raw and f.name != "extra"]
    if missing:
        raise ValueError(f"sample lacks {', '.join(missing)}")
    for name in ("id", "data_source", "question", "answer"):
        if not isinstance(raw[name], str):
            raise ValueError(f"sample.{name}={raw[name]!r} must be a string")
    if raw["answer_kind"] not in get_args(AnswerKind):
        raise ValueError(f"sample.answer_kind={raw['answer_kind']!r} is not one of {', '.join(get_args(AnswerKind))}")
    image_size = Size(*_numbers(raw["image_size"], 2, "sample.image_size", int))
    return Sample(
        id=raw["id"],
        data_source=raw["data_source"],
        question=raw["question"],
        answer=raw["answer"],
        answer_kind=raw["answer_kind"],
        options=tuple(map(str, raw["options"])),
        targets=tuple(_target(index, target, image_size) for index, target in enumerate(raw["targets"])),
        image_size=image_size,
        extra=dict(raw.get("extra") or {}),
    )


def write_samples(rows: Iterable[Row], path: str | Path, split: str = "train") -> int:
    """Write RL samples, in order, as one parquet file; return how many. The file appears complete or not at all."""
    return _write((_sample_record(row, index, split) for index, row in enumerate(rows)), SAMPLE_SCHEMA, Path(path))


def read_samples(path: str | Path) -> Iterator[Row]:
    """Yield the RL samples of a parquet file one by one.

    Raises:
        ValueError: naming file, row and field when a row cannot be read.
    """
    for index, record in enumerate(read_records(path)):
        try:
            yield Row(sample_from_json(record["extra_info"]["sample"]), record["prompt"], record["images"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: row {index}: extra_info.sample cannot be read: {error}") from error


def write_sft(rows: Iterable[SftRow], path: str | Path) -> int:
    """Write conversations, in order, as one parquet file; return how many. It appears complete or not at all."""
    return _write(map(_sft_record, rows), SFT_SCHEMA, Path(path))


def read_records(path: str | Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of any parquet file as dictionaries, a row group at a time.

    Raises:
        ValueError: if the file is absent or not parquet.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file")
    try:
        source = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: not a parquet file: {error}") from error
    with source:
        for batch in source.iter_batches(batch_size=_ROWS_A_GROUP):
            yield from batch.to_pylist()


def _target(index: int, raw: dict[str, Any], image_size: Size) -> Target:
    field = f"sample.targets[{index}]"
    role = raw.get("role", "evidence")
    if role not in get_args(Role):
        raise ValueError(f"{field}.role={role!r} is not one of {', '.join(get_args(Role))}")
    box = raw.get("box_orig_px")
    if box is not None:
        x1, y1, x2, y2 = _numbers(box, 4, f"{field}.box_orig_px", float)
        box = (x1, y1, x2, y2)
    mask = raw.get("mask_rle")
    if mask is not None:
        mask = check_rle(mask, image_size, where=f"{field}.mask_rle")
    return Target(box_orig_px=box, name=raw.get("name", ""), role=role, mask_rle=mask)


def _numbers(value: Any, count: int, field: str, kind: type) -> list[Any]:
    if not isinstance(value, list) or len(value) != count or not all(isinstance(v, int | float) for v in value):
        raise ValueError(f"{field}={value!r} must be a list of {count} numbers")
    return [kind(v) for v in value]


def _sample_record(row: Row, index: int, split: str) -> dict[str, Any]:
    return {
        "id": row.sample.id,
        "data_source": row.sample.data_source,
        "prompt": row.prompt,
        "images": row.images,
        "reward_model": {"style": "rule", "ground_truth": row.sample.answer},
        "extra_info": {"index": index, "split": split, "sample": sample_to_json(row.sample)},
    }


def _sft_record(row: SftRow) -> dict[str, Any]:
    return {"id": row.id, "messages": row.messages, "images": row.images, "masks": row.masks}


def _write(records: Iterable[dict[str, Any]], schema: pa.Schema, path: Path) -> int:
    count, iterator = 0, iter(records)
    with replacing(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        while group := list(itertools.islice(iterator, _ROWS_A_GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
            count += len(group)
    return count
