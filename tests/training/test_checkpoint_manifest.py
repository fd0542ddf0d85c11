"""Checkpoints that were interrupted or damaged are told from those that a run may start from."""

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from vgr_rl.errors import ConfigError
from vgr_rl.training.checkpoint_files import resume_point
from vgr_rl.training.checkpoint_manifest import MANIFEST, fault_of, newest_sound, prune, seal, steps, write_manifest


def checkpoint(folder: Path, step: int, complete: bool = True) -> Path:
    path = folder / f"global_step_{step}"
    (path / "actor").mkdir(parents=True)
    (path / "actor" / "model.pt").write_bytes(bytes(range(256)) * step)
    (path / "data.pt").write_bytes(b"data")
    if complete:
        assert write_manifest(path) == 256 * step + 4
    return path


def test_a_sound_checkpoint_has_no_fault_and_a_manifest_is_written_again_as_it_was(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, 3)
    text = (path / MANIFEST).read_text()
    assert fault_of(path) is None and write_manifest(path) == 772
    assert (path / MANIFEST).read_text() == text


def test_a_checkpoint_counts_from_when_it_is_sealed(tmp_path: Path) -> None:
    before, path = checkpoint(tmp_path, 2), checkpoint(tmp_path, 3, complete=False)
    assert write_manifest(path, sealed=False) == 772
    assert newest_sound(tmp_path) == before and "interrupted" in str(fault_of(path))
    seal(path)
    text = (path / MANIFEST).read_text()
    assert newest_sound(tmp_path) == path and write_manifest(path, sealed=False) == 772
    seal(path)
    seal(path)
    assert (path / MANIFEST).read_text() == text


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda path: (path / MANIFEST).unlink(), "has no manifest.json: it was interrupted"),
        (lambda path: (path / MANIFEST).write_text('{"files"'), "manifest.json cannot be read"),
        (lambda path: (path / MANIFEST).write_text("[]"), "manifest.json cannot be read"),
        (lambda path: (path / "data.pt").unlink(), "data.pt is missing"),
        (lambda path: (path / "actor/model.pt").write_bytes(b"x" * 100), "actor/model.pt has 100 bytes of 2560"),
        (lambda path: (path / "data.pt").write_bytes(b"Data"), "data.pt has other contents"),
    ],
)
def test_what_is_wrong_is_said_and_the_previous_one_is_used(
    damage: Callable[[Path], object], fault: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = checkpoint(tmp_path, 9), checkpoint(tmp_path, 10)  # by number, not by name
    assert newest_sound(tmp_path) == second and not caplog.records
    damage(second)
    assert newest_sound(tmp_path) == first
    assert f"{second} is not used: {fault}" in caplog.text


def test_a_run_begins_anew_only_when_nothing_was_complete(tmp_path: Path) -> None:
    assert newest_sound(tmp_path / "nowhere") is None
    checkpoint(tmp_path, 1, complete=False)
    assert newest_sound(tmp_path) is None
    (checkpoint(tmp_path, 2) / "data.pt").unlink()
    with pytest.raises(ConfigError, match=r"every checkpoint in .* is damaged \(global_step_2\)"):
        newest_sound(tmp_path)


def test_a_checkpoint_that_is_named_has_to_be_sound(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, 2)
    keys = {"default_local_dir": str(tmp_path), "resume_mode": "resume_path", "resume_from_path": str(path)}
    assert resume_point(OmegaConf.create(keys)) == path
    (path / "data.pt").write_bytes(b"")
    with pytest.raises(ConfigError, match="trainer.resume_from_path=.*data.pt has 0 bytes of 4"):
        resume_point(OmegaConf.create(keys))


def test_a_checkpoint_of_another_run_is_for_the_start_and_one_of_this_run_for_when_nothing_came_later(
    tmp_path: Path,
) -> None:
    def start(path: Path) -> Path | None:
        keys = {"default_local_dir": str(tmp_path / "own"), "resume_mode": "resume_path", "resume_from_path": str(path)}
        return resume_point(OmegaConf.create(keys))

    other = checkpoint(tmp_path / "other", 7)
    assert start(other) == other
    own = [checkpoint(tmp_path / "own", step) for step in (2, 4)]
    assert start(other) == own[1]  # the same command, given again
    with pytest.raises(ConfigError, match=r"holds later checkpoints \(global_step_4\): go on from these without that"):
        start(own[0])
    (own[1] / "data.pt").unlink()
    assert start(own[0]) == own[0] and start(other) == own[0]


def test_the_oldest_are_removed_by_number_and_none_that_is_later(tmp_path: Path) -> None:
    written = {step: checkpoint(tmp_path, step) for step in (2, 9, 10, 12)}
    (tmp_path / "best" / "global_step_2").mkdir(parents=True)

    def left() -> list[int]:
        return [int(path.name.removeprefix("global_step_")) for path in steps(tmp_path)]

    prune(written[10], None)
    assert left() == [2, 9, 10, 12]
    prune(written[10], 2)
    assert left() == [9, 10, 12]
    prune(written[10], 1)
    assert left() == [10, 12]
    assert (tmp_path / "best" / "global_step_2").is_dir()


def test_one_that_is_not_complete_takes_no_place(tmp_path: Path) -> None:
    first, half, newest = checkpoint(tmp_path, 4), checkpoint(tmp_path, 5, complete=False), checkpoint(tmp_path, 8)
    prune(newest, 2)
    assert first.is_dir() and not half.exists() and newest.is_dir()
