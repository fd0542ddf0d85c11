"""What users start on a cluster: the RayJob against KubeRay's schema, the scripts against bash and their own checks."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[2]
MANIFEST = ROOT / "scripts/kuberay/rayjob.yaml"


def manifest() -> dict[str, Any]:
    return yaml.safe_load(MANIFEST.read_text())


def test_the_rayjob_fits_kuberays_schema() -> None:
    schema = json.loads((Path(__file__).parent / "rayjob_schema.json").read_text())
    jsonschema.validate(manifest(), schema)
    with pytest.raises(jsonschema.ValidationError, match="workerGroup"):
        broken = manifest()
        broken["spec"]["rayClusterSpec"]["workerGroup"] = broken["spec"]["rayClusterSpec"].pop("workerGroupSpecs")
        jsonschema.validate(broken, schema)


def test_no_key_stands_in_the_manifest_and_pods_do_not_run_as_root() -> None:
    cluster = manifest()["spec"]["rayClusterSpec"]
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["envFrom"] and not container.get("env")


@pytest.mark.parametrize("script", ["submit.sh", "slurm/train.sbatch"])
def test_the_scripts_are_bash(script: str) -> None:
    subprocess.run(["bash", "-n", ROOT / "scripts" / script], check=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the command is missing"),
        (["--need", "A B", "--", "true"], "--need takes the name of an environment variable, not 'A B'"),
    ],
)
def test_a_wrong_submission_is_named(arguments: list[str], message: str) -> None:
    done = subprocess.run(["bash", ROOT / "scripts/submit.sh", *arguments], capture_output=True, text=True)
    assert done.returncode == 1 and message in done.stderr


def test_the_slurm_job_starts_a_cluster_runs_the_command_and_requeues_itself_when_stopped(tmp_path: Path) -> None:
    """The script's own logic, with SLURM's commands and Ray replaced by shell functions that write down their calls."""
    calls, tools = tmp_path / "calls", tmp_path / "bin"
    tools.mkdir()
    fakes = {
        "scontrol": 'if [ "$1" = show ]; then printf "n1\\nn2\\n"; else echo "scontrol $*" >>"$CALLS"; fi',
        "srun": 'case "$*" in *hostname*) echo 10.0.0.1;; *) echo "srun $*" >>"$CALLS"; exec sleep 60;; esac',
        "ray": "true",
        "python": 'grep -c "ray start" "$CALLS"',  # the nodes that have joined
    }
    for name, body in fakes.items():
        (tools / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (tools / name).chmod(0o755)
    environment = {
        **os.environ,
        **{"CALLS": str(calls), "PATH": f"{tools}:{os.environ['PATH']}", "VGR_VENV": str(tmp_path)},
        **{"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_NUM_NODES": "2"},
        "SLURM_JOB_ID": "7",
    }
    script = ROOT / "scripts/slurm/train.sbatch"
    body = 'trap "exit 143" TERM; echo "run $RAY_ADDRESS" >>"$CALLS"; kill -TERM $PPID; while :; do sleep 0.05; done'
    done = subprocess.run(["bash", script, "bash", "-c", body], env=environment, timeout=60)
    assert done.returncode == 143
    text = calls.read_text()
    assert "-w n1 ray start --head --block --node-ip-address=10.0.0.1 --port=6379" in text
    assert "-w n2 ray start --block --address=10.0.0.1:6379" in text
    assert "run 10.0.0.1:6379" in text and "scontrol requeue 7" in text
    assert subprocess.run(["bash", script, "bash", "-c", "exit 3"], env=environment, timeout=60).returncode == 3
    assert calls.read_text().count("requeue") == 1
