"""A run directory as the diagnoses read it: whatever it holds by now, whether the run goes on or has ended."""

import json
import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any

from vgr_rl.diagnosis.finding import Evidence
from vgr_rl.diagnosis.limits import MIN_ROLLOUTS, MIN_STEPS, MIN_STEPS_OF_CHANGE, WINDOW
from vgr_rl.training.run_log import EVENTS, METRICS, SAMPLES

Points = list[tuple[int, float]]
"""Step and value, by rising step."""

Rollouts = list[dict[str, Any]]
"""Rows of samples.jsonl."""


_FIELDS = {
    METRICS: {"step", "data"},
    SAMPLES: set(
        "step data_source response score terms status reasons boxes_orig_px targets_orig_px image_size".split()
    ),
    EVENTS: {"level", "message"},
}


class Missing(LookupError):
    """A diagnosis lacks the numbers it needs; the message says which."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a run has written until now.

    Attributes:
        config: the resolved configuration, {} when there is none.
        metrics: values by metric and step; None where the run logged a NaN or an infinity.
        rollouts: the rollouts of the last `WINDOW` steps that have any.
        events: entries of events.jsonl.
    """

    config: Mapping[str, Any]
    metrics: Mapping[str, Mapping[int, float | None]]
    rollouts: Rollouts = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def last_step(self) -> int:
        """The last step with a metric, 0 without any."""
        return max((max(values) for values in self.metrics.values()), default=0)

    def setting(self, key: str, default: Any) -> Any:
        """Return the value of a dotted key, or the default where the configuration lacks it or has null."""
        value: Any = self.config
        for name in key.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        return default if value is None else value

    def finite(self, metric: str) -> Points:
        """Return the finite values of a metric, if any."""
        return [(step, value) for step, value in sorted(self.metrics.get(metric, {}).items()) if value is not None]

    def points(self, metric: str, at_least: int = 1) -> Points:
        """Return the finite values of a metric.

        Raises:
            Missing: there are fewer than `at_least`.
        """
        found = self.finite(metric)
        if len(found) < at_least:
            raise Missing(f"{metric} of {at_least} steps")
        return found

    def level(self, metric: str) -> Evidence:
        """Return the mean of a metric over the last steps."""
        return mean(metric, self.points(metric, MIN_STEPS)[-WINDOW:])

    def change(self, metric: str) -> tuple[Evidence, Evidence]:
        """Return the means of a metric over the first and over the last steps, which do not overlap."""
        points = self.points(metric, MIN_STEPS_OF_CHANGE)
        window = min(WINDOW, len(points) // 2)
        return mean(metric, points[:window]), mean(metric, points[-window:])

    def total(self, metric: str) -> Evidence:
        """Return the sum of a metric over the last steps."""
        points = self.points(metric, MIN_STEPS)[-WINDOW:]
        return Evidence(metric, sum(value for _, value in points), points[0][0], points[-1][0])

    def many_rollouts(self) -> Rollouts:
        """Return the rollouts.

        Raises:
            Missing: there are too few to say anything.
        """
        if len(self.rollouts) < MIN_ROLLOUTS:
            raise Missing(f"{MIN_ROLLOUTS} rollouts in {SAMPLES}")
        return self.rollouts

    def measured(self, name: str, value: float) -> Evidence:
        """Return a number that was measured on the rollouts, as evidence."""
        return Evidence(name, value, self.rollouts[0]["step"], self.rollouts[-1]["step"])


def mean(metric: str, points: Points) -> Evidence:
    """Return the mean of some values as evidence."""
    return Evidence(metric, fmean(value for _, value in points), points[0][0], points[-1][0])


def read_run(path: Path) -> Run:
    """Read a run directory; files that a run has not written yet count as empty.

    Raises:
        ValueError: it is no run directory, or a file in it cannot be read; names the file and the line.
    """
    config = path / "config.yaml"
    if not config.is_file() and not (path / METRICS).is_file():
        inside = ", ".join(str(samples.parent) for samples in sorted(path.glob(f"*/{SAMPLES}"))[:5])
        raise ValueError(
            f"{path} holds neither config.yaml nor {METRICS}; expected a run directory of `python -m vgr_rl.main`"
            + (f", such as {inside}" if inside else "")
        )
    metrics: dict[str, dict[int, float | None]] = {}
    for line in _read_lines(path / METRICS):
        for name, value in line["data"].items():
            metrics.setdefault(name, {})[line["step"]] = _finite(value)
    if "train/loss" in metrics:
        raise ValueError(f"{path} is a run of `python -m vgr_rl.sft`; expected one of `python -m vgr_rl.main`")
    steps = groupby(_read_lines(path / SAMPLES), lambda row: row["step"])
    last_steps = deque((list(rows) for _, rows in steps), WINDOW)
    return Run(
        config=_read_config(config) if config.is_file() else {},
        metrics=metrics,
        rollouts=[row for rows in last_steps for row in rows],
        events=list(_read_lines(path / EVENTS)),
    )


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _read_lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        return
    needed = _FIELDS[path.name]
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith("\n"):
                return  # still being written, or cut off by a kill
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path} line {number} is not JSON: {error}") from error
            if not isinstance(row, dict) or not needed <= row.keys():
                raise ValueError(f"{path} line {number} needs {', '.join(sorted(needed))}: is it of another version?")
            yield row


def _read_config(path: Path) -> dict[str, Any]:
    from omegaconf import OmegaConf
    from yaml import YAMLError

    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    return content if isinstance(content, dict) else {}  # type: ignore[return-value]
