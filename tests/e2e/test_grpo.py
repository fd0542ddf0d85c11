"""The whole training stack on the tiny model: Ray, TransferQueue, FSDP2, vLLM, reward workers. Minutes."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModelForImageTextToText, AutoProcessor

from tests.e2e import cluster
from tests.e2e.runs import (
    BATCH,
    CORRELATION,
    GROUP,
    TRAIN_SAMPLES,
    command,
    expected_ids,
    ids_by_step,
    lines,
    metrics,
    train,
)
from vgr_rl.config.resolvers import asset_path
from vgr_rl.monitoring.metric_names import meaning
from vgr_rl.prepare import main as prepare

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    counts = ["--train", str(TRAIN_SAMPLES), "--val", "4", "--heldout", "4", "--sft", "4", "--sft-val", "4"]
    prepare(["tiny", "--out", str(folder), *counts])
    return folder


def leftovers(before: set[str]) -> set[str]:
    """Return the new shared-memory segments that no process holds; one that does belongs to somebody else."""
    held = ""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            held += (process / "maps").read_text(errors="replace")
    return {path.name for path in Path("/dev/shm").iterdir() if f"/dev/shm/{path.name}" not in held} - before


@pytest.fixture(scope="module")
def uninterrupted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / "a"
    shared = {path.name for path in Path("/dev/shm").iterdir()}
    result = train(run_dir, data, "trainer.total_training_steps=5", "trainer.save_freq=5", "model.freeze=[vision]",
                   "trainer.logger=[tensorboard,wandb]", "trainer.test_freq=5", "pictures.every_n_steps=2")  # fmt: skip
    assert result.returncode == 0, result.stderr[-4000:]
    assert not leftovers(shared)
    return run_dir


def test_rollouts_use_the_new_weights_rewards_vary_and_gradients_flow(uninterrupted: Path) -> None:
    assert min(metrics(uninterrupted, CORRELATION)) > 0.99
    assert max(metrics(uninterrupted, "reward/score/std")) > 0
    assert max(metrics(uninterrupted, "actor/grad_norm")) > 0
    assert [line["step"] for line in lines(uninterrupted / "metrics.jsonl")] == [1, 2, 3, 4, 5]
    for part in ("accuracy", "format", "recall_iou", "precision_iou", "dual_iou"):
        assert len(metrics(uninterrupted, f"reward/{part}/mean")) == 5


def test_only_what_is_not_frozen_was_trained_and_the_model_loads(uninterrupted: Path) -> None:
    AutoProcessor.from_pretrained(uninterrupted / "model")
    trained = AutoModelForImageTextToText.from_pretrained(uninterrupted / "model").state_dict()
    start = AutoModelForImageTextToText.from_pretrained(asset_path("base_qwen2_5_vl")).state_dict()
    assert trained.keys() == start.keys()
    changed = {name for name in trained if not torch.equal(trained[name].float(), start[name].float())}
    assert changed
    assert not any("visual" in name for name in changed)


def test_every_rollout_is_logged_with_its_evidence(uninterrupted: Path, data: Path) -> None:
    rows = lines(uninterrupted / "samples.jsonl")
    assert len(rows) == 5 * BATCH * GROUP
    assert {row["split"] for row in rows} == {"train"}
    for row in rows:
        assert row["response"].startswith("<think>")
        assert row["score"] == pytest.approx(sum(row["parts"][term] for term in ("accuracy", "format", "dual_iou")))
    for step in range(1, 6):
        scores: dict[str, list[dict]] = {}
        for row in rows:
            if row["step"] == step:
                scores.setdefault(row["group"], []).append(row)
        for group in scores.values():
            best, worst = max(group, key=lambda r: r["score"]), min(group, key=lambda r: r["score"])
            if best["score"] - worst["score"] > 1e-3:
                assert best["advantage"] > 0 > worst["advantage"]


def test_the_run_directory_is_complete(uninterrupted: Path) -> None:
    for name in ("config.yaml", "metrics.jsonl", "samples.jsonl", "tensorboard", "wandb", "checkpoints", "model"):
        assert (uninterrupted / name).exists(), name
    assert list((uninterrupted / "tensorboard").glob("events*"))
    assert list((uninterrupted / "wandb").glob("*offline*"))


def test_rollouts_are_shown_and_every_metric_is_documented(uninterrupted: Path) -> None:
    shown = uninterrupted / "wandb" / "latest-run" / "files" / "media"
    for name, steps in (("rollouts", (1, 2, 4)), ("validation", (5,))):
        assert len(list((shown / "metadata" / "boxes2D" / name).glob("*.json"))) > 0
        assert len(list((shown / "images" / name).glob("*.png"))) == 4 * len(steps)
        tables = [json.loads(path.read_text()) for path in (shown / "table" / name).glob("*.json")]
        assert sorted(row[0] for table in tables for row in table["data"]) == [step for step in steps for _ in range(4)]
    events = EventAccumulator(str(uninterrupted / "tensorboard"), size_guidance={"images": 0}).Reload()
    assert [image.step for image in events.Images("rollouts/1")] == [1, 2, 4]
    assert [image.step for image in events.Images("validation/4")] == [5]
    logged = {name for line in lines(uninterrupted / "metrics.jsonl") for name in line["data"]}
    assert "timing_s/pictures" in logged and [name for name in sorted(logged) if meaning(name) is None] == []


def test_the_order_of_the_data_is_that_of_the_seed(uninterrupted: Path) -> None:
    assert ids_by_step(uninterrupted) == expected_ids(5)


def test_lora_rollouts_use_the_adapters(data: Path, tmp_path: Path) -> None:
    result = train(
        tmp_path / "lora", data, "model.lora_rank=8", "actor_rollout_ref.actor.optim.lr=1e-3",
        "trainer.total_training_steps=4", "trainer.save_freq=4",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-4000:]
    assert min(metrics(tmp_path / "lora", CORRELATION)) > 0.999
    merged = load_file(tmp_path / "lora" / "model" / "model.safetensors")
    base = load_file(Path(asset_path("base_qwen2_5_vl")) / "model.safetensors")
    assert merged.keys() == base.keys()
    assert any(not torch.equal(merged[name].float(), base[name].float()) for name in base)


@pytest.fixture
def ray_cluster() -> Iterator[cluster.Cluster]:
    """A cluster of one node that was there before the run."""
    with cluster.running([1]) as running:
        yield running


def test_the_other_family_runs_as_a_job_of_a_cluster_beside_a_local_run(
    data: Path, tmp_path: Path, ray_cluster: cluster.Cluster
) -> None:
    dashboard, environment = ray_cluster.address, ray_cluster.environment
    submit = ["ray", "job", "submit", "--address", dashboard, "--working-dir", str(Path(__file__).parents[2]), "--"]
    overrides = ("model=tiny_qwen3_vl", "trainer.total_training_steps=2", "trainer.save_freq=2")
    job = ["python", *command(tmp_path / "q3", data, *overrides)[1:]]
    with open(tmp_path / "beside.log", "w") as log:
        local = command(tmp_path / "beside", data, "trainer.total_training_steps=3", "trainer.save_freq=-1")
        beside = subprocess.Popen(local, stderr=log, stdout=log)
    try:
        result = subprocess.run([*submit, *job], capture_output=True, text=True, timeout=400, env=environment)
        assert beside.wait(timeout=200) == 0, (tmp_path / "beside.log").read_text()[-4000:]
    finally:
        beside.kill()
    output = result.stdout + result.stderr
    assert result.returncode == 0, output[-4000:]
    assert "boxes in norm1000" in output
    assert min(metrics(tmp_path / "q3", CORRELATION)) > 0.99
    boxes = [box for row in lines(tmp_path / "q3" / "samples.jsonl") for box in row["boxes_orig_px"]]
    assert boxes and max(max(box) for box in boxes) <= 64


def test_photographs_run_end_to_end(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "vgr_rl.main", "recipe=photos", f"run_dir={tmp_path}/run", "trainer.logger=[]"],
        cwd=tmp_path, capture_output=True, text=True, timeout=400,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-4000:]
    assert len(metrics(tmp_path / "run", CORRELATION)) == 10
    assert min(metrics(tmp_path / "run", CORRELATION)) > 0.99
    sizes = {tuple(row["image_size"]) for row in lines(tmp_path / "run" / "samples.jsonl")}
    assert len(sizes) > 3


def test_rollouts_with_stale_weights_stop_the_run(data: Path, tmp_path: Path) -> None:
    (tmp_path / "stale_weights.py").write_text(
        "from verl.checkpoint_engine.base import CheckpointEngineManager as Manager\n"
        "original = Manager.update_weights\n"
        "def update_weights(self, *args, **kwargs):\n"
        "    if getattr(self, 'synchronised', False):\n"
        "        return None\n"
        "    self.synchronised = True\n"
        "    return original(self, *args, **kwargs)\n"
        "Manager.update_weights = update_weights\n"
    )
    result = train(
        tmp_path / "stale", data, "actor_rollout_ref.actor.optim.lr=2e-2", "trainer.total_training_steps=8",
        VERL_USE_EXTERNAL_MODULES="stale_weights", PYTHONPATH=str(tmp_path),
    )  # fmt: skip
    assert result.returncode != 0
    assert "guards.min_logprob_correlation" in result.stderr


def test_a_stopped_actor_is_named_and_ends_the_run(data: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(tmp_path / "hung", data, "trainer.total_training_steps=500", "guards.ping_timeout_s=5"),
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        cluster.wait_for((tmp_path / "hung" / "metrics.jsonl").exists, "first step", 250)
        workers = [p for p in psutil.Process(process.pid).children(recursive=True) if "WorkerDict" in p.name()]
        assert workers, "no policy worker process found"
        os.kill(workers[0].pid, signal.SIGSTOP)
        _, stderr = process.communicate(timeout=200)
    finally:
        process.kill()
    assert process.returncode != 0
    assert "policy worker 0 stands still" in stderr and "3 times guards.ping_timeout_s" in stderr
    cluster.wait_for(
        lambda: not workers[0].is_running() or workers[0].status() == psutil.STATUS_ZOMBIE, "end of it", 20
    )
