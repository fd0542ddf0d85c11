"""Read what a run left on disk: training runs, evaluations, and the folder of the demo that holds both."""

import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

Series = list[tuple[int, float]]
"""Step and value, by rising step."""

Group = list[dict[str, Any]]
"""The rollouts of one prompt at one step."""

SAMPLES = 16_000
"""How many rollouts of a run a page shows at most."""

METRIC_FIELDS = frozenset({"step", "data"})
ROW_FIELDS = frozenset({"id", "response", "parts", "boxes_orig_px", "image_size"})
"""What each line of metrics.jsonl, and of samples.jsonl and the files of an evaluation, has to hold."""

_TRAIN_COMMANDS = {"sft": "python -m vgr_rl.sft", "grpo": "python -m vgr_rl.main"}
EVALUATIONS = ("cold_start", "grpo")


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """A run directory: `metrics.jsonl`, and `config.yaml` and `samples.jsonl` where they exist.

    Attributes:
        path: the directory.
        config: the resolved configuration, {} when there is none.
        metrics: finite values by metric name.
        groups: rollouts of `samples.jsonl` by prompt, evenly spaced where there are too many.
        every: `groups` holds every so many-th prompt.
    """

    path: Path
    config: dict[str, Any]
    metrics: dict[str, Series]
    groups: list[Group] = field(default_factory=list)
    every: int = 1

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


def read_any(path: Path, samples: int = SAMPLES) -> DemoRun | TrainingRun:
    """Read a demo folder or a single run directory, whichever `path` is.

    Raises:
        ValueError: when it is neither, or a piece is missing; names the file and the command that makes it.
    """
    if not path.is_dir():
        raise ValueError(f"{path} is not a directory; make the demo's with `bash scripts/demo.sh`")
    if (path / "metrics.jsonl").is_file():
        return read_training(path, samples=samples)
    if any((path / name).is_dir() for name in ("sft", "grpo", "eval")):
        return read_demo(path, samples)
    raise ValueError(
        f"{path} holds neither metrics.jsonl (a run of `python -m vgr_rl.main` or `python -m vgr_rl.sft`) nor the "
        "folders sft, grpo and eval (the demo: `bash scripts/demo.sh`)"
    )


def read_one(path: Path, samples: int = SAMPLES) -> EvaluationRun | TrainingRun:
    """Read an evaluation or a single run directory, whichever `path` is.

    Raises:
        ValueError: when it is neither, or a piece is missing.
    """
    if (path / "summary.json").is_file() and not (path / "eval").is_dir():
        return read_evaluation(path)
    if (path / "metrics.jsonl").is_file():
        return read_training(path, samples=samples)
    raise ValueError(
        f"{path} holds neither summary.json (an evaluation of `python -m vgr_rl.evaluate`) nor metrics.jsonl (a run)"
    )


def read_demo(path: Path, samples: int = SAMPLES) -> DemoRun:
    """Read the demo's folder.

    Raises:
        ValueError: when a piece is missing or unreadable.
    """
    stages = {name: read_training(path / name, command, samples) for name, command in _TRAIN_COMMANDS.items()}
    evaluations = {name: read_evaluation(path / "eval" / name) for name in EVALUATIONS}
    seconds_path = path / "seconds.json"
    if not seconds_path.is_file():
        log.warning("%s is missing: the report shows no stage times (scripts/demo.sh writes it)", seconds_path)
    seconds = _read_json(seconds_path) if seconds_path.is_file() else {}
    return DemoRun(path, stages["sft"], stages["grpo"], evaluations, {k: float(v) for k, v in seconds.items()})


def read_training(path: Path, command: str = "python -m vgr_rl.main", samples: int = SAMPLES) -> TrainingRun:
    """Read a run directory.

    Args:
        path: the directory.
        command: what makes such a run, for the error message.
        samples: how many rollouts are kept at most.

    Raises:
        ValueError: when `metrics.jsonl` is missing or unreadable.
    """
    metrics_path = path / "metrics.jsonl"
    if not metrics_path.is_file():
        raise ValueError(f"{metrics_path} is missing; make it with `{command}`")
    config_path, samples_path = path / "config.yaml", path / "samples.jsonl"
    groups, every = (
        spaced(by_prompt(_read_lines(samples_path, ROW_FIELDS)), samples) if samples_path.is_file() else ([], 1)
    )
    return TrainingRun(
        path=path,
        config=read_config(config_path),
        metrics=series(_read_lines(metrics_path, METRIC_FIELDS)),
        groups=groups,
        every=every,
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
        rows[mode] = list(_read_lines(rows_path, ROW_FIELDS))
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


def series(lines: Iterable[dict[str, Any]], before: Mapping[str, Series] | None = None) -> dict[str, Series]:
    """Return the finite values of lines of `metrics.jsonl` by metric name, added to those read `before`."""
    by_step: dict[str, dict[int, float]] = {name: dict(points) for name, points in (before or {}).items()}
    for line in lines:
        for name, value in line["data"].items():
            if isinstance(value, int | float) and math.isfinite(value):
                by_step.setdefault(name, {})[int(line["step"])] = float(value)  # a resumed run repeats steps
    return {name: sorted(values.items()) for name, values in by_step.items()}


def by_prompt(rows: Iterable[dict[str, Any]]) -> Iterator[Group]:
    """Yield the rollouts of each prompt, in order; those of one step stand together in `rows`."""
    for _, of_step in groupby(rows, lambda row: (row.get("split"), row.get("step"))):
        groups: dict[str, Group] = {}
        for row in of_step:
            groups.setdefault(str(row.get("group", row["id"])), []).append(row)
        yield from groups.values()


def spaced(groups: Iterable[Group], limit: int) -> tuple[list[Group], int]:
    """Return every n-th group, the first included, so that they have at most `limit` rollouts in all; and n.

    Example:
        >>> spaced([[{"id": n}] for n in range(5)], limit=3)
        ([[{'id': 0}], [{'id': 2}], [{'id': 4}]], 2)
    """
    kept: list[Group] = []
    every, rollouts = 1, 0
    for index, group in enumerate(groups):
        if index % every:
            continue
        kept.append(group)
        rollouts += len(group)
        while rollouts > limit and len(kept) > 1:
            kept, every = kept[::2], every * 2
            rollouts = sum(map(len, kept))
    return kept, every


def _read_lines(path: Path, needed: frozenset[str]) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
            except ValueError as error:  # no JSON, or no UTF-8
                if not line.endswith(b"\n"):
                    return  # still being written, or cut off by a kill
                raise ValueError(f"{path} line {number} is not JSON: {error}") from error
            if not isinstance(row, dict) or not needed <= row.keys():
                raise ValueError(f"{path} line {number} needs {', '.join(sorted(needed))}: is it of another version?")
            yield row


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__} but an object is expected")
    return content


def read_config(path: Path) -> dict[str, Any]:
    """Return what a resolved configuration holds, {} when there is no such file."""
    if not path.is_file():
        return {}
    from omegaconf import OmegaConf

    content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    return content if isinstance(content, dict) else {}  # type: ignore[return-value]
