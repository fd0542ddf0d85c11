"""Short training runs of the tiny model, and what they leave in their run directory."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from vgr_rl.training.data_order import batch_indices

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


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a jsonl file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def metrics(run_dir: Path, name: str) -> list[float]:
    """Return a metric of every step that is in metrics.jsonl."""
    return [line["data"][name] for line in lines(run_dir / "metrics.jsonl")]


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
