"""FSDP engine for device "cpu"; imported in the workers through `actor_rollout_ref.model.external_lib`."""

from typing import Any

from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from vgr_rl.cpu import fast_layers


@EngineRegistry.register(model_type="language_model", backend=["fsdp", "fsdp2"], device="cpu")
class CpuFSDPEngineWithLMHead(FSDPEngineWithLMHead):
    """verl's engine without pinned host memory, which needs an accelerator, and with layers arranged for a CPU."""

    def initialize(self) -> None:
        """Build the model, the optimiser and the schedule."""
        fast_layers.install()
        super().initialize()

    def _build_fsdp_module(self, module: Any) -> Any:
        # verl gives forward-only (reference) engines CPUOffloadPolicy(pin_memory=True). There is nothing to offload to
        # here, and pinning raises: build the module as if it were trained.
        config, forward_only = self.engine_config, self.engine_config.forward_only
        object.__setattr__(config, "forward_only", False)
        try:
            return super()._build_fsdp_module(module)
        finally:
            object.__setattr__(config, "forward_only", forward_only)
