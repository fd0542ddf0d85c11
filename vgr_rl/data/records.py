"""Rows of json, jsonl and parquet files alike."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vgr_rl.data.schema import read_records


class RowError(ValueError):
    """A row of a source cannot be used because of one field."""

    def __init__(self, field: str, value: Any, reason: str) -> None:
        self.field, self.value, self.reason = field, value, reason
        super().__init__(f"{field}={value!r} {reason}")


def read_any_records(path: str | Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a .json (a list), .jsonl or .parquet file.

    Raises:
        ValueError: if the file is absent, of another kind, or malformed; with the line for jsonl.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    readers = {".json": _json_rows, ".jsonl": _jsonl_rows, ".parquet": read_records}
    if path.suffix not in readers:
        raise ValueError(f"{path}: the name must end in one of {', '.join(readers)}")
    for index, row in enumerate(readers[path.suffix](path)):
        if not isinstance(row, dict):
            raise ValueError(f"{path}: row {index} is a {type(row).__name__}, not an object")
        yield row


def _json_rows(path: Path) -> Iterator[Any]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(rows, list):
        raise ValueError(f"{path}: must hold a list of rows, not a {type(rows).__name__}")
    yield from rows


def _jsonl_rows(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path}: line {number} is not valid JSON: {error}") from error
