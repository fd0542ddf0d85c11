"""When a checkpoint counts; what else the trainer does is seen in its runs (tests/e2e)."""

from pathlib import Path

import pytest

from tests.e2e.runs import lines
from vgr_rl.training.checkpoint_manifest import complete, write_manifest
from vgr_rl.training.run_log import RunLog
from vgr_rl.training.trainer import EvidenceTrainer, LastLog


def test_a_checkpoint_counts_when_its_step_is_logged_and_not_before(tmp_path: Path) -> None:
    trainer = EvidenceTrainer.__new__(EvidenceTrainer)
    trainer.run_log, trainer._keep, folder = RunLog(tmp_path / "run"), None, tmp_path / "global_step_3"
    folder.mkdir()
    (folder / "data.pt").write_bytes(b"data")
    write_manifest(folder, sealed=False)
    trainer._unsealed = folder, "saved it"
    log = LastLog(trainer.run_log, trainer._seal_checkpoint)
    with pytest.raises(FileNotFoundError):  # the run directory is not there: the numbers are nowhere
        log.log({"reward": 1.0}, 3)
    assert complete(tmp_path) == []
    (tmp_path / "run").mkdir()
    for step in (3, 4):  # step 4 saves none
        log.log({"reward": 1.0}, step)
        assert complete(tmp_path) == [folder]
    assert [line["step"] for line in lines(tmp_path / "run/metrics.jsonl")] == [3, 4]
    assert [line["message"] for line in lines(tmp_path / "run/events.jsonl")] == ["saved it"]
