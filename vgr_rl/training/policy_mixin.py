"""What the policy's FSDP engines differ in from verl's, on accelerators and on the CPU.

Vision tokens get no probability, as in the rollouts; the vision tower runs once for each image of a micro-batch, not
once for each rollout that shows it; and a checkpoint of another number of workers can be loaded.
"""

from collections.abc import Sequence
from typing import Any

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils
from verl.workers.engine.fsdp import transformer_impl

from vgr_rl.training.memory import COMPONENTS, parameter_component
from vgr_rl.training.reshard import ReshardingCheckpointManager
from vgr_rl.training.vision_sharing import VisionSharing
from vgr_rl.training.vision_tokens import banned_token_ids
from vgr_rl.verl_patches import replaced_names


class EvidenceEngineMixin:
    """Bans vision tokens and shares vision features; mixed into an FSDP engine with a language-model head."""

    def initialize(self) -> None:
        """Build the model, the optimiser and the schedule."""
        with replaced_names(transformer_impl, FSDPCheckpointManager=ReshardingCheckpointManager):
            super().initialize()

    def _build_fsdp_module(self, module: torch.nn.Module) -> torch.nn.Module:
        if getattr(self.engine_config, "use_fused_kernels", False):
            raise ValueError(
                "actor_rollout_ref.model.use_fused_kernels=true computes log-probs without logits, so vision tokens "
                "cannot be banned there; set it to false"
            )
        self._banned_ids = torch.tensor(banned_token_ids(self.model_config.get_processor()), dtype=torch.long)
        self._vocabulary_size = len(self.model_config.tokenizer)
        self._sharing = VisionSharing(module)
        freeze(module, getattr(module.config, "frozen_components", ()))
        return super()._build_fsdp_module(module)

    def forward_backward_batch(self, data: TensorDict, loss_function: Any, forward_only: bool = False) -> Any:
        """Run the micro-batches of a batch; the vision inputs they fetch are dropped afterwards."""
        try:
            return super().forward_backward_batch(data, loss_function, forward_only)
        finally:
            self._sharing.forget()

    def prepare_model_inputs(self, micro_batch: TensorDict) -> tuple[dict[str, Any], dict[str, Any]]:
        """Replace references to shared vision inputs by the inputs, one copy for each prompt of the micro-batch."""
        inputs = micro_batch.get("multi_modal_inputs", None)
        if inputs is not None:
            micro_batch = micro_batch.copy()
            resolved = self._sharing.resolve(list(inputs), device=micro_batch["input_ids"].device)
            tensordict_utils.assign_non_tensor_stack(micro_batch, "multi_modal_inputs", resolved)
        return super().prepare_model_inputs(micro_batch)

    def prepare_model_outputs(
        self, output: Any, output_args: dict[str, Any], micro_batch: TensorDict, logits_processor_func: Any
    ) -> dict[str, Any]:
        """Take the probability of banned tokens and of ids outside the tokenizer before log-probs are computed."""
        ban_in_place(output.logits, self._banned_ids.to(output.logits.device), self._vocabulary_size)
        return super().prepare_model_outputs(output, output_args, micro_batch, logits_processor_func)


def freeze(module: torch.nn.Module, components: Sequence[str]) -> None:
    """Take the gradient of every parameter of some components of a vision-language model.

    Args:
        module: Hugging Face model.
        components: of `vision`, `language` and `head` (`model.freeze`); see `parameter_component`.

    Raises:
        ValueError: a component that is none of these, or nothing would be left to train.
    """
    unknown = sorted(set(components) - set(COMPONENTS))
    if unknown:
        raise ValueError(f"model.freeze={list(components)} but only {', '.join(COMPONENTS)} can be frozen")
    for name, parameter in module.named_parameters():
        if parameter_component(name) in components:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise ValueError(f"model.freeze={list(components)} leaves nothing to train")


def ban_in_place(logits: torch.Tensor, banned_ids: torch.Tensor, vocabulary_size: int) -> None:
    """Give tokens the lowest finite logit, in place: it must stay finite, 0 * -inf in a masked sum is not a number.

    Args:
        logits: (..., V), the output of a linear layer, whose backward pass does not need it.
        banned_ids: (K,) ids on the device of the logits.
        vocabulary_size: Ids from here to V have no token (padding of the embedding).
    """
    lowest = torch.finfo(logits.dtype).min
    if vocabulary_size < logits.shape[-1]:
        logits[..., vocabulary_size:] = lowest
    if banned_ids.numel():
        logits.index_fill_(-1, banned_ids, lowest)
