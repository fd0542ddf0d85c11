"""Short training runs and cold starts of the tiny model, and what they leave in their run directory."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.training.sft_fixtures import run_overrides
from vgr_rl.training.data_order import batch_indices

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

ROOT = Path(__file__).parents[2]
CORRELATION = "training/rollout_actor_probs_pearson_corr"
TRAIN_SAMPLES, BATCH, GROUP = 10, 4, 4


def command(run_dir: Path, data: Path, *overrides: str) -> list[str]:
    """Return the command of a short run on the tiny data in a folder."""
    return [
        *(sys.executable, "-m", "vgr_rl.main", f"run_dir={run_dir}"),
        *(f"data.train_files={data}/train.parquet", f"data.val_files={data}/val.parquet"),
        *(f"data.train_batch_size={BATCH}", f"actor_rollout_ref.actor.ppo_mini_batch_size={BATCH}"),
        *(f"actor_rollout_ref.rollout.n={GROUP}", "data.max_response_length=64"),
        *("guards.min_correlation_tokens=64", "guards.min_logprob_correlation=0.99", "trainer.logger=[tensorboard]"),
        *overrides,
    ]


def train(run_dir: Path, data: Path, *overrides: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        command(run_dir, data, *overrides),
        capture_output=True,
        text=True,
        timeout=400,
        env={**os.environ, "WANDB_MODE": "offline", **env},
    )


def cold_start(
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
    settings = {"OMP_NUM_THREADS": "1", "VERL_PLATFORM": "cpu", "TORCH_COMPILE_DISABLE": "1"}  # it imports verl first
    environment = {**os.environ, **settings, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", DRIVER, str(rows), str(stop_after), how, *overrides, *more]
    finished = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=400)
    expected = {"SIGKILL": -signal.SIGKILL, "SIGTERM": 128 + signal.SIGTERM}[how] if stop_after else 0
    assert finished.returncode == expected, finished.stderr[-4000:]
    return [int(line) for line in rows.read_text().split()]


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a jsonl file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def metrics(run_dir: Path, name: str) -> list[float]:
    """Return a metric of every step that is in metrics.jsonl."""
    return [line["data"][name] for line in lines(run_dir / "metrics.jsonl")]


def by_step(run_dir: Path, name: str = "train/loss") -> dict[int, float]:
    """Return a metric by step, of the steps that have it."""
    rows = lines(run_dir / "metrics.jsonl")
    return {row["step"]: row["data"][name] for row in rows if name in row["data"]}


def ids_by_step(run_dir: Path) -> dict[int, list[str]]:
    """Return the samples that each step trained on, in order."""
    steps: dict[int, list[str]] = {}
    for row in lines(run_dir / "samples.jsonl"):
        if row["rollout"] == 0:
            steps.setdefault(row["step"], []).append(row["id"])
    return steps


def expected_ids(steps: int) -> dict[int, list[str]]:
    """Return which samples the steps of a run with seed 0 see."""
    names = [f"tiny-train-0-{index}" for index in range(TRAIN_SAMPLES)]
    return {step: [names[i] for i in batch_indices(0, step, TRAIN_SAMPLES, BATCH)] for step in range(1, steps + 1)}
