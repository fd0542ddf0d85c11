"""Pictures, small enough for a page of many, each of them once."""

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from vgr_rl.grounding import Size

LONGEST_SIDE, CRISP_SIDE = 640, 256
"""Pictures are shown with at most the first number of pixels a side; those up to the second count as drawn ones."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded picture of media type `kind`, or why there is none (`problem`)."""

    encoded: bytes
    kind: str = "text/plain"
    problem: str = ""

    @property
    def base64(self) -> str:
        """The picture as text."""
        return base64.b64encode(self.encoded).decode()

    @property
    def uri(self) -> str:
        """The picture as a `data:` URI, "" when there is none."""
        return f"data:{self.kind};base64,{self.base64}" if self.encoded else ""


def fitted(size: Size, longest_side: int) -> Size:
    """Return a size with at most `longest_side` pixels a side, never larger than it was.

    Example:
        >>> fitted(Size(64, 32), 640), fitted(Size(4000, 3000), 640)
        (Size(width=64, height=32), Size(width=640, height=480))
    """
    factor = min(1.0, longest_side / max(size))
    return Size(max(1, round(size.width * factor)), max(1, round(size.height * factor)))


class Album:
    """The pictures that rows refer to, numbered in the order in which they are first met; encoded when asked for."""

    def __init__(self, longest_side: int = LONGEST_SIDE) -> None:
        self.longest_side = longest_side
        self._numbers: dict[str, int] = {}
        self._images: list[Mapping[str, Any] | None] = []

    def __len__(self) -> int:
        return len(self._images)

    def add(self, image: Mapping[str, Any] | None) -> int:
        """Return the number of the picture that a row refers to, as `picture` takes it."""
        key = json.dumps(image, sort_keys=True)
        if key not in self._numbers:
            self._numbers[key] = len(self._images)
            self._images.append(image)
        return self._numbers[key]

    def encode(self, number: int) -> Picture:
        """Encode a picture."""
        return picture(self._images[number], self.longest_side)

    def by_place(self) -> list[int]:
        """Return all numbers, pictures of one file beside one another: a parquet is then read once, in order."""

        def place(number: int) -> tuple[str, int]:
            image = self._images[number] or {}
            return str(image.get("parquet", "")), int(image.get("row", 0))

        return sorted(range(len(self._images)), key=place)


def picture(image: Mapping[str, Any] | None, longest_side: int = LONGEST_SIDE) -> Picture:
    """Return the picture that a row refers to, upright and shrunk to at most `longest_side` pixels a side.

    Args:
        image: `{path}`, `{png_base64}`, `{parquet, row}` (the first image of a row of our schema) or None.
        longest_side: pixels; never enlarged.
    """
    if not image:
        return Picture(b"", problem="the row has no picture")
    try:
        source = _stored(image["parquet"], image["row"]) if "parquet" in image else _given(image)
        return _encode(source, longest_side)
    except (OSError, ValueError) as error:
        return Picture(b"", problem=f"picture not readable: {error}")


def _given(image: Mapping[str, Any]) -> bytes | Path:
    encoded = image.get("png_base64", "")
    return base64.b64decode(encoded, validate=True) if encoded else Path(image.get("path", ""))


def _stored(parquet: str, row: int) -> bytes | Path:
    group, offset = _row_group(parquet, row)
    image = _images(parquet, group)[offset].as_py()[0]
    return image["bytes"] or Path(parquet).parent / image["path"]


def _row_group(parquet: str, row: int) -> tuple[int, int]:
    """Return which row group holds a row, and where in it."""
    for group, rows in enumerate(_group_sizes(parquet)):
        if row < rows:
            return group, row
        row -= rows
    raise ValueError(f"{parquet} has no such row")


@lru_cache(maxsize=16)
def _group_sizes(parquet: str) -> list[int]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(parquet) as file:
        return [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]


@lru_cache(maxsize=1)  # whole pictures: hold no more than one group of them
def _images(parquet: str, group: int) -> Any:
    import pyarrow.parquet as pq

    with pq.ParquetFile(parquet) as file:
        return file.read_row_group(group, columns=["images"])["images"]


def _encode(source: bytes | Path, longest_side: int) -> Picture:
    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
        opened.draft("RGB", (2 * longest_side, 2 * longest_side))  # a JPEG is decoded at a fraction of its size
        shown = ImageOps.exif_transpose(opened).convert("RGB")
    drawn = max(shown.size) <= CRISP_SIDE
    shown.thumbnail((longest_side, longest_side))
    buffer = io.BytesIO()
    if drawn:
        shown.save(buffer, "PNG")
    else:
        shown.save(buffer, "JPEG", quality=82)
    return Picture(buffer.getvalue(), "image/png" if drawn else "image/jpeg")
