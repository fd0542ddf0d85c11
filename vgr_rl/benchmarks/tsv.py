"""Tab-separated benchmark files with base64 images, which stay in the file until somebody asks for them."""

import base64
import csv
import hashlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from vgr_rl.data.files import replacing

ImageSource = Callable[[], bytes]
"""Returns an encoded image (JPEG, PNG); it is read when called."""

Row = dict[str, Any]
"""One row: text by column, but an `ImageSource` under `image`."""

_LARGEST_CELL = 2**31 - 1  # the csv module stops at 128 KiB by default
_LONG = 64 * 1024
_ELSEWHERE = "\x1f"  # begins what stands in a row for a long cell: its place in the file
_LONGEST_REFERENCE = 64


def read_tsv(path: Path) -> list[Row]:
    """Return the rows of a TSV file that has a header, in the dialect of pandas.

    Images take no memory: a row remembers where in the file its image is. A cell of at most 64 characters under `image`
    that is the `index` of another row stands for that row's image, as in VLMEvalKit's files.

    Raises:
        ValueError: if the file is absent, is not UTF-8, or a row has too few or too many cells; names file and row.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    csv.field_size_limit(_LARGEST_CELL)
    rows: list[Row] = []
    try:
        with path.open("rb") as file:
            reader = csv.DictReader(_lines(file), delimiter="\t", strict=True)
            for row in reader:
                if None in row or None in row.values():
                    cells = sum(value is not None for name, value in row.items() if name) + len(row.get(None, ()))
                    raise ValueError(f"it has {cells} cells but the header has {len(reader.fieldnames or ())}")
                if long := [name for name, cell in row.items() if cell.startswith(_ELSEWHERE) and name != "image"]:
                    raise ValueError(f"{long[0]} has more than {_LONG} characters")
                rows.append(row)
    except (csv.Error, ValueError) as error:
        raise ValueError(f"{path}: row {len(rows) + 1}: {error}") from error
    images = {row["index"]: row["image"] for row in rows if "index" in row and "image" in row}
    for row in rows:
        if "image" in row:
            cell = row["image"]
            own = len(cell) > _LONGEST_REFERENCE or cell not in images
            row["image"] = _source(cell if own else images[cell], path) if cell.strip() else None
    return rows


def write_tsv(path: Path, rows: Iterable[Row]) -> int:
    """Write rows as `read_tsv` reads them, one image in memory at a time; return how many. It appears complete or not.

    An image that an earlier row has is written as that row's `index`.
    """
    indices: dict[bytes, str] = {}
    count = 0
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer: csv.DictWriter[str] | None = None
        for row in rows:
            image = row["image"]()
            index = indices.setdefault(hashlib.sha256(image).digest(), row["index"])
            cell = base64.b64encode(image).decode() if index == row["index"] else index
            if writer is None:
                writer = csv.DictWriter(file, list(row), delimiter="\t", lineterminator="\n")
                writer.writeheader()
            writer.writerow(row | {"image": cell})
            count += 1
    return count


def _lines(file: BinaryIO) -> Iterator[str]:
    """Yield the lines of a file with every long cell replaced by its place: `csv` looks at each character."""
    start = 0
    for line in file:
        short = line if len(line) < _LONG else _shortened(line, start)
        start += len(line)
        yield short.decode("utf-8-sig" if start == len(line) else "utf-8")


def _shortened(line: bytes, start: int) -> bytes:
    cells = line.split(b"\t")
    for index, cell in enumerate(cells):
        if len(cell) > _LONG and not cell.startswith(b'"'):
            text = cell.rstrip(b"\r\n")
            cells[index] = f"{_ELSEWHERE}{start}:{len(text)}".encode() + cell[len(text) :]
        start += len(cell) + 1
    return b"\t".join(cells)


def _source(cell: str, path: Path) -> ImageSource:
    if not cell.startswith(_ELSEWHERE):
        return partial(_decoded, cell.encode(), path)
    start, length = map(int, cell[1:].split(":"))
    return partial(_read, path, start, length)


def _read(path: Path, start: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return _decoded(file.read(length), path)


def _decoded(text: bytes, path: Path) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise ValueError(f"{path}: image={text[:20].decode()!r}… is not base64: {error}") from error
