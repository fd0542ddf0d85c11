"""The cold start for real: verl's trainer, FSDP2 on gloo, one and two processes, interrupted and resumed, exported."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.e2e.runs import by_step, cold_start
from tests.training.sft_fixtures import run_overrides, write_tiny_data, write_tiny_model
from vgr_rl.monitoring.metric_names import meaning
from vgr_rl.training.shards import differing_tensors, local_part, read_shards

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[2]
STEPS_AN_EPOCH, STEPS = 6, 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sft")
    write_tiny_model(folder / "model")
    write_tiny_data(folder, train=4 * STEPS_AN_EPOCH, val=8)
    return folder


@pytest.fixture(scope="module")
def uninterrupted(folder: Path) -> dict[str, Any]:
    run_dir = folder / "uninterrupted"
    rows = cold_start(folder, run_dir, f"trainer.save_freq={STEPS_AN_EPOCH}")
    return {"run_dir": run_dir, "rows": rows, "losses": by_step(run_dir)}


def test_it_learns_and_leaves_a_run_directory(uninterrupted: dict[str, Any]) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    run_dir, losses = uninterrupted["run_dir"], uninterrupted["losses"]
    assert list(losses) == list(range(1, STEPS + 1))
    assert losses[STEPS] < 0.9 * losses[1]
    validation = by_step(run_dir, "val/loss")
    assert list(validation) == [STEPS_AN_EPOCH, STEPS] and validation[STEPS] < validation[STEPS_AN_EPOCH]
    rates = by_step(run_dir, "train/lr")
    assert rates[STEPS] == pytest.approx(0, abs=1e-9) and max(rates.values()) == pytest.approx(1e-3)
    assert sorted(uninterrupted["rows"][:24]) == sorted(uninterrupted["rows"][24:]) == list(range(24))
    assert uninterrupted["rows"][:24] != uninterrupted["rows"][24:]  # another order in the second epoch
    assert (run_dir / "config.yaml").is_file() and list((run_dir / "tensorboard").iterdir())
    logged = {
        name for line in (run_dir / "metrics.jsonl").read_text().splitlines() for name in json.loads(line)["data"]
    }
    assert [name for name in sorted(logged) if meaning(name) is None] == []  # documented
    before = AutoModelForImageTextToText.from_pretrained(run_dir.parent / "model").state_dict()
    after = AutoModelForImageTextToText.from_pretrained(run_dir / "model").state_dict()
    assert AutoProcessor.from_pretrained(run_dir / "model").image_processor.patch_size == 8
    assert all(not torch.equal(before[name], after[name]) for name in before if "weight" in name)


@pytest.mark.parametrize(
    ("save_freq", "stop_after", "how", "resumed"),
    [(STEPS_AN_EPOCH, 8, "SIGKILL", STEPS_AN_EPOCH), (100, 7, "SIGTERM", 7)],
    ids=["killed, from the end of an epoch", "asked to end, from within an epoch"],
)
def test_an_interrupted_run_continues_as_if_nothing_had_happened(
    folder: Path, uninterrupted: dict[str, Any], save_freq: int, stop_after: int, how: str, resumed: int
) -> None:
    run_dir = folder / f"interrupted_{save_freq}"
    first = cold_start(folder, run_dir, f"trainer.save_freq={save_freq}", stop_after=stop_after, how=how)
    second = cold_start(folder, run_dir, f"trainer.save_freq={save_freq}", rows=run_dir.with_suffix(".rows2"))
    assert first == uninterrupted["rows"][: len(first)]
    assert second == uninterrupted["rows"][4 * resumed :]
    assert by_step(run_dir) == pytest.approx(uninterrupted["losses"], rel=1e-6)
    assert (run_dir / "model" / "config.json").is_file() and not (run_dir / "stop").exists()


def test_two_processes_take_the_same_steps(folder: Path, uninterrupted: dict[str, Any]) -> None:
    """Two shards, gathered gradients, merged and verified: the same model as from one process, also when stopped."""
    from safetensors.torch import load_file

    run_dir = folder / "two"
    overrides = run_overrides(folder, **{"run_dir": run_dir, "trainer.total_epochs": 2, "optim.lr": 1e-3})
    command = [sys.executable, "-m", "vgr_rl.sft", *overrides, "trainer.n_gpus_per_node=2", "trainer.logger=[]"]
    stopped = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    while not (run_dir / "metrics.jsonl").exists():
        assert stopped.poll() is None, stopped.communicate()[1][-4000:]
        time.sleep(0.02)
    (run_dir / "stop").touch()
    _, said = stopped.communicate(timeout=400)
    assert stopped.returncode == 75 and f"stopped by the file {run_dir}/stop after step" in said, said[-4000:]
    done = max(by_step(run_dir))
    assert 1 <= done < STEPS and f"after step {done}; the same command goes on from there" in said
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=400)
    assert finished.returncode == 0, finished.stderr[-4000:]
    assert "against 2 shards" in finished.stderr
    assert by_step(run_dir) == pytest.approx(uninterrupted["losses"], rel=1e-3)
    one = load_file(uninterrupted["run_dir"] / "model" / "model.safetensors")
    two = load_file(run_dir / "model" / "model.safetensors")
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=0.05, atol=2e-3, msg=name)
    _damage_in_any_shard_is_found(run_dir)


def _damage_in_any_shard_is_found(run_dir: Path) -> None:
    from transformers import AutoModelForImageTextToText

    saved = AutoModelForImageTextToText.from_pretrained(run_dir / "model").state_dict()
    shards = read_shards(run_dir / "checkpoints" / f"global_step_{STEPS}")
    assert len(shards) == 2 and differing_tensors(saved, shards, torch.float32) == []
    for rank, name in enumerate(["lm_head.weight", "model.language_model.norm.weight"]):
        local_part(shards[rank][name]).view(-1)[0] += 1
        assert any(
            f"{name}: differs from rank {rank}" in line for line in differing_tensors(saved, shards, torch.float32)
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.path=./nowhere"], "error: model.path=./nowhere"),
        (["data.max_length=10"], "error: data.max_length=10 but"),
        (["recipe=nothing"], "Available options in 'recipe':"),
        (["optim.learning_rate=1"], "Could not override 'optim.learning_rate'"),
    ],
)
def test_a_mistake_ends_in_a_message_and_leaves_nothing(
    folder: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    command = [sys.executable, "-m", "vgr_rl.sft", *run_overrides(folder, run_dir=tmp_path / "run"), *arguments]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert finished.returncode == (2 if message.startswith("error") else 1)
    assert message in finished.stderr and "Traceback" not in finished.stderr
    assert not list(tmp_path.iterdir())
