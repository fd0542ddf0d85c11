"""Score a stream of rows: one line of JSON in, one result out, and a summary of all of them."""

import json
import math
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from rewards.compose import Composed, RewardSets
from rewards.diagnostics import diagnose
from rewards.rows import FIELDS, read_row, scored_row
from rewards.score import Status
from vgr_rl.grounding.sample import Sample
from vgr_rl.grounding.trace import Trace

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Scored:
    """One row and its grade.

    Attributes:
        line: number of the line, 1 for the first.
        sample: what the response was graded against.
        trace: the parsed response.
        composed: the grade.
        unread: names of fields that are none of the format.
    """

    line: int
    sample: Sample
    trace: Trace
    composed: Composed
    unread: tuple[str, ...]

    def to_json(self) -> str:
        """Return the output row as one line of strict JSON."""
        return json.dumps(scored_row(self.sample, self.trace, self.composed), ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True, slots=True)
class BadRow:
    """One line that is no row.

    Attributes:
        line: number of the line, 1 for the first.
        reason: what is wrong with which field.
    """

    line: int
    reason: str


def score_lines(lines: Iterable[bytes], rewards: RewardSets) -> Iterator[Scored | BadRow]:
    """Grade every line of a JSONL file, one at a time and in order; lines of white space are skipped."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            raw = json.loads(line.removeprefix(_BYTE_ORDER_MARK).decode("utf-8"))
        except (ValueError, RecursionError) as error:  # RecursionError: brackets nested by the thousand
            yield BadRow(number, f"not valid JSON: {error}")
            continue
        try:
            row = read_row(raw)
        except ValueError as error:
            yield BadRow(number, str(error))
            continue
        trace = row.trace()
        unread = tuple(name for name in raw if name not in FIELDS)
        yield Scored(number, row.sample, trace, rewards.score(trace, row.sample), unread)


@dataclass(slots=True)
class Summary:
    """Numbers of all scored responses, by name; NaN where a response has none.

    Attributes:
        rows: how many responses were scored.
        columns: `{group: {name: numbers}}`. The group "score" holds the weighted sum, "terms" the value of each term,
            "diagnostics" what `diagnose` says, and each term's own name its parts.
        statuses: how many responses have which status, by term; "score" for the sum.
        reasons: how often each term failed for which reason, `(term, reason)`.
        unread: in how many rows a field was that is none of the format.
    """

    rows: int = 0
    columns: "dict[str, dict[str, array[float]]]" = field(default_factory=dict)
    statuses: dict[str, Counter[Status]] = field(default_factory=dict)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    unread: Counter[str] = field(default_factory=Counter)

    def add(self, scored: Scored) -> None:
        """Count one response."""
        composed = scored.composed
        self._count("score", composed.status)
        self._append("score", {"score": composed.value} if composed.status == "ok" else {})
        for name, score in composed.terms.items():
            self._count(name, score.status)
            if score.status == "ok":
                self._append("terms", {name: score.value})
                self._append(f"parts of {name}", score.parts)
            elif score.status == "failed":
                self.reasons[name, score.reason] += 1
        self._append("diagnostics", diagnose(scored.trace, scored.sample))
        self.unread.update(scored.unread)
        self.rows += 1

    @property
    def failed(self) -> int:
        """How many responses have no score because a term failed."""
        return self.statuses["score"]["failed"] if "score" in self.statuses else 0

    def column(self, group: str, name: str) -> list[float]:
        """Return the numbers of one column, one for each response."""
        numbers = self.columns[group][name]
        return [*numbers, *([math.nan] * (self.rows - len(numbers)))]

    def _count(self, name: str, status: Status) -> None:
        self.statuses.setdefault(name, Counter())[status] += 1

    def _append(self, group: str, numbers: Mapping[str, float]) -> None:
        columns = self.columns.setdefault(group, {})
        for name, number in numbers.items():
            column = columns.setdefault(name, array("d"))
            column.extend([math.nan] * (self.rows - len(column)))
            column.append(number)


@dataclass(frozen=True, slots=True)
class Spread:
    """Count, mean, population standard deviation and share of zeros of the finite numbers of a column."""

    count: int
    mean: float
    std: float
    zero_rate: float

    @classmethod
    def of(cls, numbers: Iterable[float]) -> "Spread":
        """Measure a column; of no number, the rest is NaN."""
        finite = [number for number in numbers if math.isfinite(number)]
        if not finite:
            return cls(0, math.nan, math.nan, math.nan)
        mean = math.fsum(finite) / len(finite)
        variance = math.fsum((number - mean) ** 2 for number in finite) / len(finite)
        return cls(len(finite), mean, math.sqrt(variance), finite.count(0.0) / len(finite))
