"""The best checkpoint by a metric outlives the retention by number."""

import shutil
from pathlib import Path

import pytest

from vgr_rl.errors import ConfigError
from vgr_rl.training.best_checkpoint import Best, BestCheckpoint, read_best
from vgr_rl.training.checkpoint_manifest import fault_of, write_manifest


def checkpoint(folder: Path, step: int) -> Path:
    path = folder / f"global_step_{step}"
    (path / "actor").mkdir(parents=True)
    (path / "actor" / "weights.pt").write_text(f"weights of {step}")
    return path


def kept(folder: Path) -> dict[str, str]:
    return {path.parts[-3]: path.read_text() for path in (folder / "best").glob("*/actor/weights.pt")}


def test_the_best_stays_when_its_checkpoint_is_removed(tmp_path: Path) -> None:
    best = BestCheckpoint(tmp_path, "val/a/overall", "max")
    for step, value in ((1, 0.5), (2, 0.75)):
        assert best.is_better(value)
        saved = checkpoint(tmp_path, step)
        write_manifest(saved, sealed=False)  # its step is logged after it was validated
        best.keep(saved, step, value)
        assert fault_of(tmp_path / "best" / saved.name) is None is not fault_of(saved)
    assert not best.is_better(0.75) and not best.is_better(0.1) and not best.is_better(float("nan"))
    shutil.rmtree(tmp_path / "global_step_2")
    assert kept(tmp_path) == {"global_step_2": "weights of 2"}
    assert read_best(tmp_path) == Best("val/a/overall", "max", 2, 0.75)


def test_a_resumed_run_knows_it(tmp_path: Path) -> None:
    BestCheckpoint(tmp_path, "loss", "min").keep(checkpoint(tmp_path, 3), 3, 0.5)
    resumed = BestCheckpoint(tmp_path, "loss", "min")
    assert not resumed.is_better(0.5) and resumed.is_better(0.4)
    message = r"best_metric=val/a/miou \(max\) but .*/best holds the best by loss \(min\); set it back"
    with pytest.raises(ConfigError, match=message):
        BestCheckpoint(tmp_path, "val/a/miou", "max")


def test_what_a_kill_left_is_in_nobodys_way(tmp_path: Path) -> None:
    best, saved = BestCheckpoint(tmp_path, "m", "max"), checkpoint(tmp_path, 1)
    checkpoint(tmp_path / "best", 1)
    (tmp_path / "best/global_step_1/actor/weights.pt").write_text("half")
    (tmp_path / "best/new").mkdir()
    best.keep(saved, 1, 1.0)
    assert kept(tmp_path) == {"global_step_1": "weights of 1"}


def test_a_record_without_its_checkpoint_is_none(tmp_path: Path) -> None:
    BestCheckpoint(tmp_path, "m", "max").keep(checkpoint(tmp_path, 3), 3, 0.5)
    shutil.rmtree(tmp_path / "best" / "global_step_3")
    assert read_best(tmp_path) is None and BestCheckpoint(tmp_path, "m", "max").is_better(0.1)


def test_a_metric_that_is_not_measured_names_those_that_are(tmp_path: Path) -> None:
    best = BestCheckpoint(tmp_path, "val/a/mious", "max")
    assert best.value({"val/a/mious": 0.5}) == 0.5
    with pytest.raises(ConfigError, match="best_metric=val/a/mious but validation gives only val/a/miou, val/b"):
        best.value({"val/b": 1.0, "val/a/miou": 0.5})
