"""Conversion of foreign rows, in which a bad row is an error or is counted and listed, never dropped silently."""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vgr_rl.data.files import replacing
from vgr_rl.data.parallel import ordered_map
from vgr_rl.data.records import RowError, rows_and_errors
from vgr_rl.data.resume import ChunkStore
from vgr_rl.data.schema import IMAGE_TAG, ImageRef, Row, SftRow
from vgr_rl.data.validate import DataError, Problem, as_problem
from vgr_rl.grounding.frames import Box, Size

SKIP_KNOB = "skip them with --skip-bad"
CHUNK_ROWS = 256


@dataclass(frozen=True, slots=True)
class Facts:
    """What the data card tells of a row.

    Attributes:
        id: the row's id.
        image: its first image, or None.
        size: stored size of that image, upright, pixels; None without an image.
        boxes_orig_px: the boxes of its targets or of its response.
        question: what is asked.
        answer: what is to be answered.
        characters: length of the question (RL) or of the response (SFT).
        marks: what was done to the row, such as "reflective".
    """

    id: str
    image: ImageRef | None
    size: Size | None
    boxes_orig_px: tuple[Box, ...]
    question: str
    answer: str
    characters: int
    marks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Kept:
    """A converted row."""

    row: Any
    facts: Facts


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A row that a filter left out."""

    step: str


Make = Callable[[int, Any], Iterable[Kept | LeftOut | RowError]]
"""What becomes of one row of a source, given its index; it may also raise `RowError`. Must be picklable."""
Outcome = Kept | LeftOut | Problem


def lettered(options: Iterable[object]) -> list[str]:
    """Return the lines `A. …`, `B. …` of a question's options."""
    return [f"{chr(ord('A') + place)}. {option}" for place, option in enumerate(options)]


def kept_sample(row: Row) -> Kept:
    """Wrap an RL sample."""
    sample = row.sample
    image = row.images[0] if row.images else None
    facts = Facts(
        sample.id,
        image,
        sample.image_size,
        tuple(sample.target_boxes),
        "\n".join([sample.question, *lettered(sample.options)]),
        sample.answer,
        len(sample.question),
    )
    return Kept(row, facts)


def kept_lesson(row: SftRow, size: Size | None, boxes_orig_px: Iterable[Box], marks: tuple[str, ...] = ()) -> Kept:
    """Wrap an SFT conversation whose response draws these boxes."""
    response = row.messages[-1]["content"]
    question = next((m["content"] for m in row.messages if m["role"] == "user"), "").replace(IMAGE_TAG, "").strip()
    answer = response.rpartition("<answer>")[2].partition("</answer>")[0].strip()
    image = row.images[0] if row.images else None
    return Kept(row, Facts(row.id, image, size, tuple(boxes_orig_px), question, answer, len(response), marks))


class Conversion:
    """The rows of a source, converted while it is iterated over: in order, on several cores when there are many.

    Memory holds some hundred rows, the ids and the bad rows.

    Args:
        source: what to read, and what bad rows are reported against.
        make: converts one row.
        skip_bad: leave bad rows out; else they are an error after the last row.
        records: the rows, when they are not those of `rows_and_errors(source)`.
        workers: processes that convert.
        store: keeps converted rows for a run that is killed; its owner removes it.
        observe: called with the index of the source's row and what became of it, for every outcome in order.

    Attributes:
        problems: the rows that could not be converted so far.
    """

    def __init__(
        self,
        source: str | Path,
        make: Make,
        skip_bad: bool,
        *,
        records: Iterable[Any] | None = None,
        workers: int = 1,
        store: ChunkStore | None = None,
        observe: Callable[[int, Outcome], None] = lambda index, outcome: None,
    ) -> None:
        self._source, self._make, self._skip_bad = Path(source), make, skip_bad
        self._records, self._workers, self._store, self._observe = records, workers, store, observe
        self.problems: list[Problem] = []

    def __iter__(self) -> Iterator[Any]:
        return (kept.row for kept in self.kept())

    def kept(self) -> Iterator[Kept]:
        """Yield the rows with what the data card tells of them.

        Raises:
            DataError: after the last row, listing the bad ones (unless `skip_bad`).
        """
        self.problems = []
        row_of_id: dict[str, int] = {}
        for index, outcome in self._outcomes():
            if isinstance(outcome, Kept):
                row_id = outcome.facts.id
                if row_id in row_of_id:
                    fault = ("id", row_id, f"is also the id of row {row_of_id[row_id]}")
                    outcome = as_problem(self._source, index, fault, SKIP_KNOB)
                else:
                    row_of_id[row_id] = index
            self._observe(index, outcome)
            if isinstance(outcome, Problem):
                self.problems.append(outcome)
            elif isinstance(outcome, Kept):
                yield outcome
        if self.problems and not self._skip_bad:
            raise DataError(self.problems)

    def write_skipped(self, path: Path) -> None:
        """List the skipped rows, one JSON object a line; no file when there are none."""
        if not self.problems:
            path.unlink(missing_ok=True)
            return
        with replacing(path) as temporary:
            temporary.write_text("".join(json.dumps(asdict(problem)) + "\n" for problem in self.problems))

    def _outcomes(self) -> Iterator[tuple[int, Outcome]]:
        records = enumerate(rows_and_errors(self._source) if self._records is None else self._records)
        chunks = iter(lambda: list(itertools.islice(records, CHUNK_ROWS)), [])
        convert = partial(_stored_chunk, self._make, self._source, self._store)
        return itertools.chain.from_iterable(ordered_map(convert, enumerate(chunks), self._workers))


def _stored_chunk(
    make: Make, source: Path, store: ChunkStore | None, numbered: tuple[int, list[tuple[int, Any]]]
) -> list[tuple[int, Outcome]]:
    number, chunk = numbered
    outcomes: list[tuple[int, Outcome]] | None = None if store is None else store.read(number)
    if outcomes is None:
        outcomes = _convert_chunk(make, source, chunk)
        if store is not None:
            store.write(number, outcomes)
    return outcomes


def _convert_chunk(make: Make, source: Path, chunk: list[tuple[int, Any]]) -> list[tuple[int, Outcome]]:
    outcomes: list[tuple[int, Outcome]] = []
    for index, raw in chunk:
        for outcome in _made(make, index, raw):
            if isinstance(outcome, RowError):
                fault = (outcome.field, outcome.value, outcome.reason)
                outcomes.append((index, as_problem(source, index, fault, SKIP_KNOB)))
            else:
                outcomes.append((index, outcome))
    return outcomes


def _made(make: Make, index: int, raw: Any) -> Iterable[Kept | LeftOut | RowError]:
    if isinstance(raw, RowError):
        return [raw]
    try:
        return list(make(index, raw))
    except RowError as error:
        return [error]
