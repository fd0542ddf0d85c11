"""The best checkpoint of a run by a validation metric, in `<checkpoints>/best`, whatever else is removed."""

import json
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from vgr_rl.benchmarks.store import write_json
from vgr_rl.errors import ConfigError
from vgr_rl.training.checkpoint_manifest import seal

_RECORD = "best.json"

Mode = Literal["max", "min"]


@dataclass(frozen=True, slots=True)
class Best:
    """Which checkpoint is the best so far, and by what."""

    metric: str
    mode: Mode
    step: int
    value: float


class BestCheckpoint:
    """Keeps `<checkpoints>/best/global_step_N`, with the same files as `<checkpoints>/global_step_N`.

    Files are hard links where the file system has them: the best takes no space while both are there, and stays when
    the other is removed. `best.json` beside it says which metric, step and value.

    Args:
        checkpoints: `trainer.default_local_dir`.
        metric: `validation.best_metric`.
        mode: `validation.best_mode`.

    Attributes:
        best: the best so far, also of the run that this one resumes; None before the first.

    Raises:
        ConfigError: if the folder's best was chosen by something else.
    """

    def __init__(self, checkpoints: str | Path, metric: str, mode: Mode) -> None:
        self.folder = Path(checkpoints) / "best"
        self.metric, self.mode = metric, mode
        self.best = read_best(checkpoints)
        if self.best is not None and (self.best.metric, self.best.mode) != (metric, mode):
            raise ConfigError(
                f"validation.best_metric={metric} ({mode}) but {self.folder} holds the best by {self.best.metric} "
                f"({self.best.mode}); set it back, move that folder away, or set another run_dir"
            )

    def value(self, metrics: Mapping[str, float]) -> float:
        """Return the metric.

        Raises:
            ConfigError: if it is not among the metrics of the validation.
        """
        if self.metric not in metrics:
            raise ConfigError(
                f"validation.best_metric={self.metric} but validation gives only {', '.join(sorted(metrics))}"
            )
        return float(metrics[self.metric])

    def is_better(self, value: float) -> bool:
        """Say whether a value beats the best so far; an equal one does not, nor one that is no number."""
        if self.best is None or not math.isfinite(value):
            return math.isfinite(value)
        return value > self.best.value if self.mode == "max" else value < self.best.value

    def keep(self, checkpoint: Path, step: int, value: float) -> None:
        """Make a checkpoint the best one; the former best is removed when this one is complete."""
        target, new = self.folder / checkpoint.name, self.folder / "new"
        shutil.rmtree(new, ignore_errors=True)
        shutil.copytree(checkpoint, new, copy_function=_link)
        seal(new)
        shutil.rmtree(target, ignore_errors=True)  # of an earlier pass over this step
        new.rename(target)
        self.best = Best(self.metric, self.mode, step, value)
        write_json(self.folder / _RECORD, asdict(self.best))
        for former in self.folder.glob("global_step_*"):
            if former != target:
                shutil.rmtree(former)


def read_best(checkpoints: str | Path) -> Best | None:
    """Return the best checkpoint of a run, None when it has none."""
    folder = Path(checkpoints) / "best"
    if not (folder / _RECORD).is_file():
        return None
    best = Best(**json.loads((folder / _RECORD).read_text(encoding="utf-8")))
    return best if (folder / f"global_step_{best.step}").is_dir() else None  # a kill in between took it


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)
