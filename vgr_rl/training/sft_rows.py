"""Rows of cold-start data: parquet with columns `messages` and `images` (and, if there are, `id` and `masks`)."""

import bisect
from collections.abc import Sequence
from pathlib import Path

from vgr_rl.data.images import upright_size
from vgr_rl.data.schema import SftRow, resolve_image
from vgr_rl.errors import ConfigError
from vgr_rl.grounding.frames import Size
from vgr_rl.grounding.masks import check_rle
from vgr_rl.training.chat_encoding import IMAGE_PLACEHOLDER

ROLES = ("system", "user", "assistant")


class SftTable:
    """The rows of one or more parquet files, by index; images stay encoded until they are asked for."""

    def __init__(self, files: Sequence[str | Path], max_rows: int = -1) -> None:
        import pyarrow.parquet as parquet

        self._tables, self._starts, self._files = [], [], [Path(file) for file in files]
        total = 0
        for file in self._files:
            columns = parquet.read_schema(file).names
            missing = [name for name in ("messages", "images") if name not in columns]
            if missing:
                raise ConfigError(f"{file} has columns {columns} but {missing} are needed: is it cold-start data?")
            wanted = [name for name in ("id", "messages", "images", "masks") if name in columns]
            self._tables.append(parquet.read_table(file, columns=wanted).combine_chunks())
            self._starts.append(total)
            total += self._tables[-1].num_rows
        self._length = min(total, max_rows) if max_rows > 0 else total

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> SftRow:
        part, local = self._place(index)
        record = self._tables[part].slice(local, 1).to_pylist()[0]
        folder = self._files[part].resolve().parent
        images = [resolve_image(image, folder) for image in record["images"] or []]
        return SftRow(record.get("id") or "", record["messages"] or [], images, record.get("masks"))

    def name(self, index: int) -> str:
        """Return file and row number of a row, for messages."""
        part, local = self._place(index)
        return f"{self._files[part]} row {local}"

    def _place(self, index: int) -> tuple[int, int]:
        if not 0 <= index < self._length:
            raise IndexError(index)
        part = bisect.bisect_right(self._starts, index) - 1
        return part, index - self._starts[part]


def check_row(row: SftRow, name: str) -> list[Size]:
    """Check everything about a row that needs no tokenizer and return its images' sizes (pixels, upright).

    Args:
        row: the conversation.
        name: what errors call it.

    Raises:
        ConfigError: naming file, row, field and value.
    """
    roles = [message.get("role") for message in row.messages]
    for turn, message in enumerate(row.messages):
        if message.get("role") not in ROLES:
            raise ConfigError(f"{name}: messages[{turn}].role={message.get('role')!r} but expected one of {ROLES}")
        if not isinstance(message.get("content"), str) or not message["content"].strip():
            raise ConfigError(f"{name}: messages[{turn}].content={message.get('content')!r} but text is needed")
    if roles[-1:] != ["assistant"] or "user" not in roles:
        raise ConfigError(f"{name}: messages have roles {roles} but a user's turn and a last assistant's are needed")
    placeholders = sum(m["content"].count(IMAGE_PLACEHOLDER) for m in row.messages if m["role"] != "assistant")
    if not row.images or placeholders != len(row.images):
        raise ConfigError(
            f"{name}: {len(row.images)} images but {placeholders} {IMAGE_PLACEHOLDER} in its messages; "
            "at least one is needed, and as many of one as of the other"
        )
    sizes = []
    for place, image in enumerate(row.images):
        try:
            sizes.append(upright_size(image))
        except ValueError as error:
            raise ConfigError(f"{name}: images[{place}]: {error}") from error
    return sizes


def check_masks(row: SftRow, name: str, segs: int) -> int:
    """Check the masks of a conversation that passed `check_row`, and return their number.

    Args:
        row: the conversation.
        name: what errors call it.
        segs: how many `[SEG]` tokens its responses have.

    Raises:
        ConfigError: naming file, row, field and value.
    """
    masks = row.masks or []
    if len(masks) != segs:
        raise ConfigError(f"{name}: {len(masks)} masks but {segs} [SEG] in its responses; one is needed for each")
    size = upright_size(row.images[0])
    for place, mask in enumerate(masks):
        try:
            check_rle(mask, size, where=f"masks[{place}]")
        except ValueError as error:
            raise ConfigError(f"{name}: {error}") from error
    return segs
