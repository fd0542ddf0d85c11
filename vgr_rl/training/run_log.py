"""The files of a run directory: written by the task runner, followed by the driver's console.

`metrics.jsonl`  {"step", "data": {name: number}} a step; a resumed run drops the lines after its checkpoint;
`samples.jsonl`  one line a rollout;
`events.jsonl`   {"time", "level", "message"}: phases, warnings, what stopped the run.
"""

import json
import math
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vgr_rl.data.files import replacing

METRICS, SAMPLES, EVENTS = "metrics.jsonl", "samples.jsonl", "events.jsonl"


def _number(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


class RunLog:
    """Appends to the files of a run directory; each line is complete when it is visible to a reader."""

    def __init__(self, run_dir: str | Path) -> None:
        self.run_dir = Path(run_dir)

    def log(self, data: Mapping[str, Any], step: int) -> None:
        """Append one step's numbers; what is not a number is left out, NaN and infinity become null."""
        row = {}
        for name, value in data.items():
            try:
                row[name] = _number(value)
            except (TypeError, ValueError):
                continue
        self._append(METRICS, [json.dumps({"step": step, "data": row})])

    def samples(self, lines: Iterable[str]) -> None:
        """Append rollouts, each one line of JSON."""
        self._append(SAMPLES, lines)

    def event(self, message: str, level: str = "info") -> None:
        """Append what a person should see; `level` is info, warning or error."""
        self._append(EVENTS, [json.dumps({"time": time.time(), "level": level, "message": message})])

    def forget_after(self, step: int) -> None:
        """Drop metrics and samples of steps after `step`: a resumed run makes them again."""
        for name in (METRICS, SAMPLES):
            path = self.run_dir / name
            if not path.exists():
                continue
            lines = path.read_bytes().split(b"\n")[
                :-1
            ]  # what a kill cut off is no line; text may hold other line breaks
            with replacing(path) as temporary:
                temporary.write_bytes(b"".join(line + b"\n" for line in lines if json.loads(line)["step"] <= step))

    def _append(self, name: str, lines: Iterable[str]) -> None:
        text = "".join(f"{line}\n" for line in lines)
        if text:
            with open(self.run_dir / name, "a", encoding="utf-8") as file:
                file.write(text)
