"""The cold start for real: verl's trainer, FSDP2 on gloo, one and two processes, interrupted and resumed, exported."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.sft_fixtures import run_overrides, write_tiny_data, write_tiny_model
from vgr_rl.monitoring.metric_names import meaning
from vgr_rl.training.shards import differing_tensors, local_part, read_shards

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[2]
STEPS_AN_EPOCH, STEPS = 6, 12

# Runs `vgr_rl.sft` with the names of the training rows written down in the order they are read, and when told to stops
# it after a step: dead, or by a signal.
DRIVER = """
import os, signal, sys
from pathlib import Path
from vgr_rl import sft
from vgr_rl.training import sft_dataset, sft_worker
rows, stop_after, how = Path(sys.argv.pop(1)), int(sys.argv.pop(1)), sys.argv.pop(1)
read, log = sft_dataset.ColdStartDataset.__getitem__, sft_worker.RunTracking.log

def reading(self, index):
    name = self.table.name(index)
    if "train.parquet" in name:
        with rows.open("a") as file:
            file.write(name.split()[-1] + "\\n")
    return read(self, index)

def logging(self, data, step, backend=None):
    log(self, data, step, backend)
    if step == stop_after and "train/loss" in data:
        os.kill(os.getpid(), signal.Signals[how])

sft_dataset.ColdStartDataset.__getitem__, sft_worker.RunTracking.log = reading, logging
sft.main()
"""


def _run(
    folder: Path, run_dir: Path, *more: str, stop_after: int = 0, how: str = "SIGKILL", rows: Path | None = None
) -> list[int]:
    """Run the cold start and return the rows of training that it read, in order."""
    rows = rows or run_dir.with_suffix(".rows")
    rows.unlink(missing_ok=True)
    overrides = run_overrides(
        folder,
        **{
            "run_dir": run_dir,
            "data.num_workers": 0,
            "trainer.total_epochs": 2,
            "trainer.logger": "[tensorboard]",
            "optim.lr": 1e-3,
        },
    )
    settings = {
        "OMP_NUM_THREADS": "1",
        "VERL_PLATFORM": "cpu",
        "TORCH_COMPILE_DISABLE": "1",
    }  # the driver imports verl first
    environment = {**os.environ, **settings, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", DRIVER, str(rows), str(stop_after), how, *overrides, *more]
    finished = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=400)
    expected = {"SIGKILL": -signal.SIGKILL, "SIGTERM": 128 + signal.SIGTERM}[how] if stop_after else 0
    assert finished.returncode == expected, finished.stderr[-4000:]
    return [int(line) for line in rows.read_text().split()]


def _losses(run_dir: Path, name: str = "train/loss") -> dict[int, float]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["data"][name] for line in lines if name in line["data"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sft")
    write_tiny_model(folder / "model")
    write_tiny_data(folder, train=4 * STEPS_AN_EPOCH, val=8)
    return folder


@pytest.fixture(scope="module")
def uninterrupted(folder: Path) -> dict[str, Any]:
    run_dir = folder / "uninterrupted"
    rows = _run(folder, run_dir, f"trainer.save_freq={STEPS_AN_EPOCH}")
    return {"run_dir": run_dir, "rows": rows, "losses": _losses(run_dir)}


def test_it_learns_and_leaves_a_run_directory(uninterrupted: dict[str, Any]) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    run_dir, losses = uninterrupted["run_dir"], uninterrupted["losses"]
    assert list(losses) == list(range(1, STEPS + 1))
    assert losses[STEPS] < 0.9 * losses[1]
    validation = _losses(run_dir, "val/loss")
    assert list(validation) == [STEPS_AN_EPOCH, STEPS] and validation[STEPS] < validation[STEPS_AN_EPOCH]
    rates = _losses(run_dir, "train/lr")
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
    first = _run(folder, run_dir, f"trainer.save_freq={save_freq}", stop_after=stop_after, how=how)
    second = _run(folder, run_dir, f"trainer.save_freq={save_freq}", rows=run_dir.with_suffix(".rows2"))
    assert first == uninterrupted["rows"][: len(first)]
    assert second == uninterrupted["rows"][4 * resumed :]
    assert _losses(run_dir) == pytest.approx(uninterrupted["losses"], rel=1e-6)
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
    done = max(_losses(run_dir))
    assert 1 <= done < STEPS and f"after step {done}; the same command goes on from there" in said
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=400)
    assert finished.returncode == 0, finished.stderr[-4000:]
    assert "against 2 shards" in finished.stderr
    assert _losses(run_dir) == pytest.approx(uninterrupted["losses"], rel=1e-3)
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
