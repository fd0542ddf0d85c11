"""`scripts/submit.sh` on a cluster of three Ray nodes: stopped by `ray job stop`, submitted again, done."""

import json
import os
import re
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import cluster
from tests.e2e.runs import CORRELATION, command, lines, metrics
from vgr_rl.prepare import main as prepare
from vgr_rl.tiny.segmenter import build_sam2
from vgr_rl.training.checkpoint_manifest import fault_of, steps

# Three Ray nodes on a machine of two cores do not always come up in time: asked for, not a part of every run.
pytestmark = [pytest.mark.e2e, pytest.mark.skipif("VGR_CLUSTER" not in os.environ, reason="VGR_CLUSTER=1 runs it")]

ROOT = Path(__file__).parents[2]
STEPS = 100  # it is stopped long before
NAMES = {0: "sam_node", 1: "train_node", 2: "judge_node"}
# Holds the only GPU slot of 127.0.0.3 until its input ends.
OTHER_JOB = """
import ray, sys
ray.init(log_to_driver=False)
group = ray.util.placement_group([{"GPU": 1, "judge_node": 0.001}])
ray.get(group.ready())
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def three_nodes():
    """A head without GPU slots, and two nodes with one each; all have names, and a key in their environment."""
    with cluster.running([0, 1, 1], {"WANDB_API_KEY": "planted"}, NAMES) as running:
        yield running


def submit(running: cluster.Cluster, *arguments: str, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
    environment = {**running.environment, "VGR_VENV": str(Path(sys.executable).parents[1])}
    deadline = time.monotonic() + 90
    while True:
        done = subprocess.run(
            ["bash", ROOT / "scripts/submit.sh", "--address", running.address, *arguments],
            capture_output=True, text=True, timeout=timeout_s, env=environment,
        )  # fmt: skip
        if "No available agent" not in done.stderr or time.monotonic() > deadline:  # a node's agent comes after it
            return done
        time.sleep(2)


def test_a_job_over_two_nodes_is_stopped_with_a_checkpoint_and_goes_on(three_nodes: cluster.Cluster, tmp_path: Path):
    prepare(["tiny", "--out", str(tmp_path / "data"), "--train", "40", "--val", "4", "--heldout", "4", "--sft", "4",
             "--sft-val", "4"])  # fmt: skip
    run_dir = tmp_path / "run"

    def job(steps_: int) -> list[str]:
        overrides = ("trainer.nnodes=2", "trainer.n_gpus_per_node=1", "trainer.save_freq=1000")
        return [
            "python",
            *command(run_dir, tmp_path / "data", *overrides, f"trainer.total_training_steps={steps_}")[1:],
        ]

    name = f"first-{uuid.uuid4().hex[:6]}"
    begun = submit(three_nodes, "--need", "WANDB_API_KEY", "--no-wait", "--submission-id", name, "--", *job(STEPS))
    assert begun.returncode == 0, begun.stderr[-2000:]
    saved = run_dir / "metrics.jsonl"
    try:
        cluster.wait_for(lambda: saved.exists() and len(lines(saved)) >= 2, "step of the job", 240)
    except AssertionError as error:
        raise AssertionError(three_nodes.ray("job", "logs", name, "--address", three_nodes.address).stdout) from error
    stopped = three_nodes.ray("job", "stop", name, "--address", three_nodes.address, timeout_s=180)
    assert stopped.returncode == 0, stopped.stderr
    log = three_nodes.ray("job", "logs", name, "--address", three_nodes.address).stdout
    done = len(lines(saved))
    assert f"stopped by SIGTERM after step {done}; the same command goes on" in log
    assert done < STEPS and [path.name for path in steps(run_dir / "checkpoints")] == [f"global_step_{done}"]
    assert fault_of(run_dir / "checkpoints" / f"global_step_{done}") is None
    assert "was stopped" in three_nodes.ray("job", "status", name, "--address", three_nodes.address).stdout

    again = submit(three_nodes, "--", *job(done + 2))
    assert again.returncode == 0, again.stdout[-4000:]
    assert re.search(rf"resumes\s+{run_dir}/checkpoints/global_step_{done}", again.stdout)
    assert [line["step"] for line in lines(saved)] == list(range(1, done + 3))
    assert min(metrics(run_dir, CORRELATION)) > 0.99
    assert (run_dir / "model/model.safetensors").is_file()


def test_parts_lie_on_the_nodes_that_are_named_and_a_run_waits_for_one_that_is_held(
    three_nodes: cluster.Cluster, tmp_path: Path
) -> None:
    small = ["--train", "8", "--val", "2", "--heldout", "2", "--sft", "2", "--sft-val", "2"]
    prepare(["tiny", "--open", "--out", str(tmp_path / "data"), *small])
    prepare(["tiny-judge", "--out", str(tmp_path / "judge")])
    build_sam2().save_pretrained(tmp_path / "sam2")
    run_dir, environment = tmp_path / "run", {**three_nodes.environment, "RAY_ADDRESS": three_nodes.gcs}
    names = [f"placement.{part}={NAMES[node]}" for part, node in (("segmenter", 0), ("policy", 1), ("judge", 2))]
    models = ["judge=pool", f"judge.model={tmp_path}/judge", "judge.cache_dir=null", f"segmenter.model={tmp_path}/sam2"]
    short = ["trainer.total_training_steps=1", "trainer.save_freq=-1", "segmenter.servers=2"]
    whole = command(run_dir, tmp_path / "data", *models, *short, *names)

    def dry_run(*overrides: str) -> str:
        asked = [*whole, "dry_run=true", *overrides]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=120, env=environment)
        assert done.returncode == 0 and not run_dir.exists(), done.stderr[-4000:]
        return done.stderr

    fits = dry_run()
    assert re.search(r"node  127.0.0.2: .*policy needs 1 GPU, 3 CPU[^;]*; has 1 GPU, 16 CPU, train_node\n", fits)
    assert re.search(r"127.0.0.3: .*judge needs 1 GPU", fits) and re.search(r"127.0.0.1: .*segmenter needs 2 CPU", fits)
    assert "  but  " not in fits
    too_many = dry_run("trainer.nnodes=2")
    assert "but  policy needs 2 x (1 GPU, 3 CPU), each on one node that offers train_node" in too_many
    assert "but  placement.judge=gpu_node but no node of the cluster offers it" in dry_run("placement.judge=gpu_node")

    holding = [sys.executable, "-c", OTHER_JOB]
    with subprocess.Popen(holding, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as other:
        assert other.stdin is not None and other.stdout is not None and other.stdout.readline() == b"held\n"
        held = dry_run()
        assert "but  judge needs 1 x (1 GPU, 3 CPU)" in held and "but other jobs hold the room for 1 of them" in held
        assert "127.0.0.3 comes nearest, it has 1 GPU (1 held by others), 16 CPU, judge_node and lacks 1 GPU" in held
        impatient = subprocess.run(
            [*whole, "placement.wait_s=3"], capture_output=True, text=True, timeout=120, env=environment
        )
        assert impatient.returncode == 2, impatient.stderr[-4000:]
        assert "has no room on the Ray cluster within placement.wait_s=3 seconds" in impatient.stderr
        assert "it has 1 GPU (1 held by others)" in impatient.stderr

        log = tmp_path / "log"
        run = subprocess.Popen(whole, stdout=log.open("wb"), stderr=subprocess.STDOUT, env=environment)
        try:
            cluster.wait_for(lambda: log.read_text().count("waiting for room") == 1, "word of waiting", 60)
            other.stdin.close()
            assert run.wait(timeout=400) == 0, log.read_text()[-4000:]
        finally:
            run.kill()
    assert "placed: policy on 127.0.0.2; judge on 127.0.0.3; segmenter on 127.0.0.1" in log.read_text()
    assert len(lines(run_dir / "metrics.jsonl")) == 1
    assert {"MaskServer": {"127.0.0.1"}, "policy": {"127.0.0.2"}, "judge": {"127.0.0.3"}} == addresses(three_nodes)


def addresses(running: cluster.Cluster) -> dict[str, set[str]]:
    """Return the nodes on which the parts of the last job with SAM2 servers were, as Ray's state has them."""

    def listed(what: str) -> list[dict[str, Any]]:
        found = running.ray("list", what, "--address", running.address, "--format", "json", "--limit", "1000")
        assert found.returncode == 0, found.stderr
        return list(json.loads(found.stdout))

    ips = {node["node_id"]: node["node_ip"] for node in listed("nodes")}
    actors = listed("actors")
    job = max(actor["job_id"] for actor in actors if actor["class_name"] == "MaskServer")
    where: dict[str, set[str]] = {}
    for actor in actors:
        name, kind = actor["name"] or "", actor["class_name"]
        part = "judge" if "reward" in name and "server" in name else kind if kind == "MaskServer" else None
        part = "policy" if "WorkerDict" in kind or re.search("vllm_server_[0-9]", name) else part
        if part is not None and actor["job_id"] == job:
            where.setdefault(part, set()).add(ips[actor["node_id"]])
    return where


def test_what_a_job_lacks_is_named_and_is_its_exit_status(three_nodes: cluster.Cluster, tmp_path: Path):
    refused = submit(three_nodes, "--need", "NOT_THERE", "--", "python", "-c", "print('ran')")
    assert refused.returncode == 1 and "NOT_THERE: is not set on the cluster" in refused.stdout
    large = ("trainer.nnodes=4", "placement.wait_s=0", f"run_dir={tmp_path}/run")
    small = submit(three_nodes, "--", "python", "-m", "vgr_rl.main", *large)
    assert small.returncode == 1 and "policy needs 4 x (1 GPU, 3 CPU)" in small.stdout
    assert "the cluster is too small for 2 of them" in small.stdout
