"""Conversion of foreign rows, in which a bad row is an error or is counted and listed, never dropped silently."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vgr_rl.data.files import replacing
from vgr_rl.data.records import RowError, read_any_records
from vgr_rl.data.validate import DataError, Problem, as_problem

SKIP_KNOB = "skip them with --skip-bad"


class Conversion:
    """The rows of a file, converted one by one while it is iterated over.

    Attributes:
        problems: the rows that could not be converted so far.
    """

    def __init__(self, path: str | Path, make: Callable[[int, dict[str, Any]], Any], skip_bad: bool) -> None:
        self._path, self._make, self._skip_bad = Path(path), make, skip_bad
        self.problems: list[Problem] = []

    def __iter__(self) -> Iterator[Any]:
        self.problems = []
        for index, raw in enumerate(read_any_records(self._path)):
            try:
                row = self._make(index, raw)
            except RowError as error:
                fault = (error.field, error.value, error.reason)
                self.problems.append(as_problem(self._path, index, fault, SKIP_KNOB))
                continue
            yield row
        if self.problems and not self._skip_bad:
            raise DataError(self.problems)

    def write_skipped(self, path: Path) -> None:
        """List the skipped rows, one JSON object a line; no file when there are none."""
        if not self.problems:
            path.unlink(missing_ok=True)
            return
        with replacing(path) as temporary:
            temporary.write_text("".join(json.dumps(asdict(problem)) + "\n" for problem in self.problems))
