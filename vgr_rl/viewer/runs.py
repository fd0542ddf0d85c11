"""Read what a run left on disk: training runs, evaluations, and the folder of the demo that holds both."""

import json
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

Series = list[tuple[int, float]]
"""Step and value, by rising step."""

_TRAIN_COMMANDS = {"sft": "python -m vgr_rl.sft", "grpo": "python -m vgr_rl.main"}
EVALUATIONS = ("cold_start", "grpo")


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """A run directory: `metrics.jsonl`, and `config.yaml` and `samples.jsonl` where they exist.

    Attributes:
        path: the directory.
        config: the resolved configuration, {} when there is none.
        metrics: finite values by metric name.
        rollouts: rows of the last step in `samples.jsonl`.
    """

    path: Path
    config: dict[str, Any]
    metrics: dict[str, Series]
    rollouts: list[dict[str, Any]] = field(default_factory=list)

    @property
    def last_step(self) -> int:
        """The highest step with a metric, 0 without any."""
        return max((series[-1][0] for series in self.metrics.values()), default=0)


@dataclass(frozen=True, slots=True)
class EvaluationRun:
    """An evaluation directory: its summary and its rows, by mode."""

    path: Path
    summary: dict[str, Any]
    rows: dict[str, list[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class DemoRun:
    """The demo's folder: both training stages, both evaluations, seconds by stage."""

    path: Path
    sft: TrainingRun
    grpo: TrainingRun
    evaluations: dict[str, EvaluationRun]
    seconds: dict[str, float]


def read_any(path: Path) -> DemoRun | TrainingRun:
    """Read a demo folder or a single run directory, whichever `path` is.

    Raises:
        ValueError: when it is neither, or a piece is missing; names the file and the command that makes it.
    """
    if not path.is_dir():
        raise ValueError(f"{path} is not a directory; make the demo's with `bash scripts/demo.sh`")
    if (path / "metrics.jsonl").is_file():
        return read_training(path)
    if any((path / name).is_dir() for name in ("sft", "grpo", "eval")):
        return read_demo(path)
    raise ValueError(
        f"{path} holds neither metrics.jsonl (a run of `python -m vgr_rl.main` or `python -m vgr_rl.sft`) nor the "
        "folders sft, grpo and eval (the demo: `bash scripts/demo.sh`)"
    )


def read_demo(path: Path) -> DemoRun:
    """Read the demo's folder.

    Raises:
        ValueError: when a piece is missing or unreadable.
    """
    stages = {name: read_training(path / name, command) for name, command in _TRAIN_COMMANDS.items()}
    evaluations = {name: read_evaluation(path / "eval" / name) for name in EVALUATIONS}
    seconds_path = path / "seconds.json"
    if not seconds_path.is_file():
        log.warning("%s is missing: the report shows no stage times (scripts/demo.sh writes it)", seconds_path)
    seconds = _read_json(seconds_path) if seconds_path.is_file() else {}
    return DemoRun(path, stages["sft"], stages["grpo"], evaluations, {k: float(v) for k, v in seconds.items()})


def read_training(path: Path, command: str = "python -m vgr_rl.main") -> TrainingRun:
    """Read a run directory.

    Args:
        path: the directory.
        command: what makes such a run, for the error message.

    Raises:
        ValueError: when `metrics.jsonl` is missing or unreadable.
    """
    metrics_path = path / "metrics.jsonl"
    if not metrics_path.is_file():
        raise ValueError(f"{metrics_path} is missing; make it with `{command}`")
    config_path, samples_path = path / "config.yaml", path / "samples.jsonl"
    return TrainingRun(
        path=path,
        config=_read_config(config_path) if config_path.is_file() else {},
        metrics=_read_metrics(metrics_path),
        rollouts=_last_step_rows(samples_path) if samples_path.is_file() else [],
    )


def read_evaluation(path: Path) -> EvaluationRun:
    """Read an evaluation directory.

    Raises:
        ValueError: when a file is missing or unreadable.
    """
    command = f"python -m vgr_rl.evaluate model=MODEL_DIR data=FILE.parquet out={path}"
    if not (path / "summary.json").is_file():
        raise ValueError(f"{path / 'summary.json'} is missing; make it with `{command}`")
    summary = _read_json(path / "summary.json")
    rows: dict[str, list[dict[str, Any]]] = {}
    for mode in summary:
        rows_path = path / f"{mode}.jsonl"
        if not rows_path.is_file():
            raise ValueError(f"{rows_path} is missing; make it with `{command} modes=[{mode}]`")
        rows[mode] = list(_read_lines(rows_path))
    return EvaluationRun(path, summary, rows)


def setting(config: dict[str, Any], *names: str) -> Any:
    """Return the first of several dotted keys that the configuration has, else None."""
    for name in names:
        value: Any = config
        for key in name.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            return value
    return None


def _read_metrics(path: Path) -> dict[str, Series]:
    by_step: dict[str, dict[int, float]] = {}
    for line in _read_lines(path):
        for name, value in line.get("data", {}).items():
            if isinstance(value, int | float) and math.isfinite(value):
                by_step.setdefault(name, {})[int(line["step"])] = float(value)  # a resumed run repeats steps
    return {name: sorted(values.items()) for name, values in by_step.items()}


def _last_step_rows(path: Path) -> list[dict[str, Any]]:
    last: list[dict[str, Any]] = []
    for row in _read_lines(path):
        if last and row.get("step") != last[0].get("step"):
            last = []
        last.append(row)
    return last


def _read_lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                if not line.endswith("\n"):
                    return  # still being written, or cut off by a kill
                raise ValueError(f"{path} line {number} is not JSON: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__} but an object is expected")
    return content


def _read_config(path: Path) -> dict[str, Any]:
    from omegaconf import OmegaConf

    content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    return content if isinstance(content, dict) else {}  # type: ignore[return-value]
