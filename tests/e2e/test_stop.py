"""A run that is asked to end saves and ends; a checkpoint that is damaged meanwhile is passed over; nothing leaks."""

import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.e2e.runs import command, ids_by_step, lines
from vgr_rl.prepare import main as prepare
from vgr_rl.training.checkpoint_manifest import fault_of, steps

pytestmark = pytest.mark.e2e

SECRET = "planted-secret-0123456789"
STEPS = 6


def logged_steps(run_dir: Path) -> list[int]:
    path = run_dir / "metrics.jsonl"
    return [line["step"] for line in lines(path)] if path.exists() else []


def command_lines() -> set[str]:
    """The command lines of all processes."""
    found = set()
    for process in psutil.process_iter(["cmdline"]):
        found.add(" ".join(process.info["cmdline"] or []))
    return found


def test_a_stopped_run_goes_on_from_the_last_sound_checkpoint_and_tells_no_secret(tmp_path: Path) -> None:
    counts = ["--train", "40", "--val", "4", "--heldout", "4", "--sft", "4", "--sft-val", "4"]
    prepare(["tiny", "--out", str(tmp_path / "data"), *counts])
    run_dir = tmp_path / "run"
    arguments = command(run_dir, tmp_path / "data", f"trainer.total_training_steps={STEPS}", "trainer.save_freq=2",
                        "trainer.logger=[tensorboard,wandb]")  # fmt: skip
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_API_KEY": SECRET, "HF_TOKEN": SECRET}
    run = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    seen: set[str] = set()
    deadline = time.monotonic() + 300
    while 3 not in logged_steps(run_dir):
        assert run.poll() is None and time.monotonic() < deadline, run.communicate()[0][-4000:]
        seen |= command_lines()
        time.sleep(0.05)
    run.send_signal(signal.SIGTERM)
    output, _ = run.communicate(timeout=120)
    assert run.returncode == 128 + signal.SIGTERM, output[-4000:]
    last = logged_steps(run_dir)[-1]
    assert f"stopped by SIGTERM after step {last}; the same command goes on from there" in output
    assert 3 <= last < STEPS and not (run_dir / "stop").exists()
    kept = steps(run_dir / "checkpoints")
    assert kept[-1].name == f"global_step_{last}" and [fault_of(path) for path in kept] == [None, None]

    assert any("vgr_rl.main" in line for line in seen)
    assert not [line for line in seen if SECRET in line]
    told = [path for path in run_dir.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert told == [] and SECRET not in output

    weights = next((kept[-1] / "actor").glob("model_world_size_1_rank_0.pt"))
    weights.write_bytes(weights.read_bytes()[:-1])
    again = subprocess.run(arguments, capture_output=True, text=True, timeout=400, env=environment)
    assert again.returncode == 0, again.stderr[-4000:]
    assert f"{kept[-1]} is not used: actor/{weights.name} has" in again.stderr
    assert logged_steps(run_dir) == list(range(1, STEPS + 1))
    seen_ids = ids_by_step(run_dir)
    assert list(seen_ids) == list(range(1, STEPS + 1))
    assert len({name for names in seen_ids.values() for name in names}) == 4 * STEPS  # 24 of 40 rows, each once
    assert [path.name for path in steps(run_dir / "checkpoints")] == ["global_step_4", "global_step_6"]
