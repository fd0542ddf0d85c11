"""Each patch of vgr_rl/verl_patches.py is still needed: upstream, unpatched, still shows the fault it mends."""

import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

UNPATCHED = {"VERL_USE_EXTERNAL_PLUGINS": "none", "OMP_NUM_THREADS": "1"}


def run(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    import os

    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **env}, capture_output=True, text=True, timeout=120
    )


def has_distribution(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


VLLM = "import verl, verl.third_party.vllm as v; print(v.vllm_version)"
GLOO = """
import os
os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0", RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")
os.environ["VERL_PLATFORM"] = "cpu"
import verl, vgr_rl.cpu.platform
from verl.utils.distributed import initialize_global_process_group_ray
initialize_global_process_group_ray()
print("initialised")
"""
ROPE = """
import torch, verl
from tensordict import TensorDict
import verl.utils.tensordict_utils as tu
ids = torch.nested.as_nested_tensor([torch.arange(5), torch.arange(5)], layout=torch.jagged)
positions = torch.nested.as_nested_tensor([torch.zeros(4, 5), torch.ones(4, 5)], layout=torch.jagged)
batch = TensorDict({"input_ids": ids, "position_ids": positions}, batch_size=2)
tu.maybe_fix_3d_position_ids(batch)
print([tuple(row.shape) for row in batch["position_ids"].unbind()])
"""

VALUE_HEAD = """
import verl
from verl.utils.import_utils import is_trl_available
if is_trl_available():
    try:
        from trl.experimental.ppo import AutoModelForCausalLMWithValueHead
    except ImportError:
        from trl import AutoModelForCausalLMWithValueHead
print("verl finds what it asks TRL for")
"""

JOB_ID = """
from ray.runtime_context import RuntimeContext
RuntimeContext.get_job_id = lambda self: "01000000"
from vgr_rl import verl_patches
verl_patches.tell_runs_on_one_machine_apart()
print(RuntimeContext.get_job_id(None))
"""


def test_verl_names_the_sockets_of_its_weight_sync_after_the_ray_job() -> None:
    spec = importlib.util.find_spec("verl")
    assert spec is not None and spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0]) / "workers" / "rollout" / "vllm_rollout"
    assert "rl-colocate-zmq-{job_id}-replica" in (folder / "vllm_rollout.py").read_text()
    assert "rl-colocate-zmq-{job_id}-replica" in (folder / "utils.py").read_text()
    assert (
        'environ["VERL_RAY_JOB_ID"] = ray.get_runtime_context().get_job_id()'
        in (folder / "vllm_async_server.py").read_text()
    )
    assert run(JOB_ID, VGR_RUN_ID="abc").stdout.split()[-1] == "01000000-abc"
    assert run(JOB_ID, VGR_RUN_ID="").stdout.split()[-1] == "01000000"


@pytest.mark.slow
@pytest.mark.skipif(has_distribution("vllm"), reason="the CUDA build is called vllm")
def test_verl_asks_for_a_distribution_called_vllm() -> None:
    assert run(VLLM, **UNPATCHED).returncode != 0
    patched = run(VLLM)
    assert patched.stdout.strip().splitlines()[-1].endswith("+cpu"), patched.stderr


@pytest.mark.slow
def test_verl_names_the_cpu_twice_in_its_backend() -> None:
    unpatched = run(GLOO, **UNPATCHED)
    assert unpatched.returncode != 0 and "Duplicate device type" in unpatched.stderr
    assert "initialised" in run(GLOO, VERL_PLATFORM="cpu").stdout


@pytest.mark.slow
def test_verl_misshapes_position_ids_of_equally_long_samples() -> None:
    expected = "[(4, 5), (4, 5)]"
    assert expected not in run(ROPE, **UNPATCHED).stdout
    patched = run(ROPE)
    assert expected in patched.stdout, patched.stderr


@pytest.mark.slow
def test_verl_asks_trl_for_a_class_that_it_has_dropped() -> None:
    import verl

    monkey_patch = Path(verl.__file__).parent / "models" / "transformers" / "monkey_patch.py"
    assert "from trl import AutoModelForCausalLMWithValueHead" in monkey_patch.read_text()
    assert "cannot import name" in run(VALUE_HEAD, **UNPATCHED).stderr
    assert "verl finds" in run(VALUE_HEAD).stdout
