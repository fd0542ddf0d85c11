"""What a person sees while a run goes on: one row a step and the events, read from the run directory."""

import json
import logging
import threading
from pathlib import Path
from typing import Any

from vgr_rl.training.run_log import EVENTS, METRICS

logger = logging.getLogger(__name__)

COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("reward", "reward/score/mean", "{:7.3f}"),
    ("acc", "reward/accuracy/mean", "{:6.3f}"),
    ("fmt", "reward/format/mean", "{:6.3f}"),
    ("IoU", "reward/dual_iou/mean", "{:6.3f}"),
    ("boxes", "evidence/boxes_per_response", "{:6.2f}"),
    ("len", "response/length/mean", "{:6.1f}"),
    ("flat", "group/zero_variance_rate", "{:5.2f}"),
    ("corr", "training/rollout_actor_probs_pearson_corr", "{:8.5f}"),
    ("s/step", "timing_s/step", "{:6.2f}"),
)


def header() -> str:
    """Return the heading of the table."""
    return "  step  " + " ".join(f"{title:>{_width(pattern)}}" for title, _, pattern in COLUMNS)


def row(step: int, data: dict[str, Any]) -> str:
    """Return one step as a row; a number that the step does not have is a dash."""
    cells = []
    for _, name, pattern in COLUMNS:
        value = data.get(name)
        cells.append(f"{'-':>{_width(pattern)}}" if value is None else pattern.format(value))
    return f"{step:6d}  " + " ".join(cells)


def _width(pattern: str) -> int:
    return len(pattern.format(0.0))


class Console:
    """A thread that follows metrics.jsonl and events.jsonl from where they end now."""

    def __init__(self, run_dir: Path, poll_s: float = 0.5) -> None:
        self.first_error: str | None = None
        self._poll_s = poll_s
        self._positions = {run_dir / name: _size(run_dir / name) for name in (METRICS, EVENTS)}
        self._stop = threading.Event()
        self._headed = False
        self._thread = threading.Thread(target=self._follow, name="console", daemon=True)

    def start(self) -> "Console":
        """Start following."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Print what is left and stop."""
        self._stop.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._stop.wait(self._poll_s):
            self._print_new()
        self._print_new()

    def _print_new(self) -> None:
        for path, position in self._positions.items():
            if _size(path) < position:  # a resumed run rewrites its metrics
                position = 0
            if not path.exists():
                continue
            with open(path, encoding="utf-8") as file:
                file.seek(position)
                text = file.read()
            complete = text.rfind("\n") + 1
            self._positions[path] = position + len(text[:complete].encode())
            for line in text[:complete].splitlines():
                self._show(path.name, json.loads(line))

    def _show(self, name: str, entry: dict[str, Any]) -> None:
        if name == EVENTS:
            level = logging.getLevelName(entry["level"].upper())
            if entry["level"] == "error" and self.first_error is None:
                self.first_error = entry["message"]
            logger.log(level, "%s%s", "" if entry["level"] == "info" else f"{entry['level']}: ", entry["message"])
            return
        if not self._headed:
            logger.info("%s", header())
            self._headed = True
        logger.info("%s", row(entry["step"], entry["data"]))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
