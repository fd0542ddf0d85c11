"""FSDP policy engines of this project; imported in the workers through `actor_rollout_ref.model.external_lib`.

They are registered for a vendor: verl looks that up before its own engine, which is registered for the device alone.
"""

from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from vgr_rl.cpu.engine import CpuFSDPEngineWithLMHead
from vgr_rl.training.policy_mixin import EvidenceEngineMixin
from vgr_rl.verl_patches import leave_vllm_out_of_policy_workers

leave_vllm_out_of_policy_workers()


@EngineRegistry.register(
    model_type="language_model", backend=["fsdp", "fsdp2"], device="cuda", vendor=["nvidia", "amd"]
)
class EvidenceFSDPEngine(EvidenceEngineMixin, FSDPEngineWithLMHead):
    """The policy on accelerators."""


@EngineRegistry.register(model_type="language_model", backend=["fsdp", "fsdp2"], device="cpu", vendor="cpu")
class EvidenceCpuFSDPEngine(EvidenceEngineMixin, CpuFSDPEngineWithLMHead):
    """The policy on machines without an accelerator."""
