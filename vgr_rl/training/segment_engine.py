"""FSDP engines that train R-Sa2VA; imported in the training processes through `model.external_lib`.

They differ from verl's in what trains (adapters of the language model, or without adapters its own weights, the
projector and the mask decoder), in what a pass gives (the masks of the `[SEG]` under loss), and in a check that what is
frozen stays as it is.
"""

import logging
from collections.abc import Sequence
from typing import Any
from unittest import mock

import torch
from peft import LoraConfig, get_peft_model
from tensordict import TensorDict
from torch import Tensor, nn
from verl.models.transformers.monkey_patch import apply_monkey_patch
from verl.utils import fsdp_utils, tensordict_utils
from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from vgr_rl.cpu.engine import CpuFSDPEngineWithLMHead
from vgr_rl.segment import auto
from vgr_rl.segment.model import RSa2VA
from vgr_rl.training.segment_parts import check_frozen, choose_trained, frozen_hashes, language_linears, trained_parts

auto.register()
logger = logging.getLogger("vgr_rl.sft")
_wrap_targets = fsdp_utils._select_fsdp2_wrap_targets


class SegmentEngineMixin:
    """Trains R-Sa2VA; mixed into an FSDP engine with a language-model head.

    Attributes:
        train_embeddings: whether embedding and head train beside adapters; set before the engine is initialised.
    """

    train_embeddings = False

    def _build_module(self) -> RSa2VA:
        if self.engine_config.ulysses_sequence_parallel_size > 1:
            raise ValueError("engine.ulysses_sequence_parallel_size>1 splits responses, whose [SEG] are then not found")
        module: RSa2VA = super()._build_module()
        apply_monkey_patch(module.vlm, use_remove_padding=self.use_remove_padding)
        choose_trained(module, self._is_lora, self.train_embeddings)
        return module

    def _build_lora_module(self, module: RSa2VA) -> nn.Module:
        settings = self.model_config
        module.enable_input_require_grads()
        config = LoraConfig(
            r=settings.lora_rank,
            lora_alpha=settings.lora_alpha,
            lora_dropout=settings.lora.get("dropout", 0.0),
            target_modules=language_linears(module, settings.target_modules),
            bias="none",
        )
        trained = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
        adapted = get_peft_model(module, config, autocast_adapter_dtype=False)
        for name in trained:  # peft froze them
            module.get_parameter(name).requires_grad_(True)
        return adapted

    def _build_fsdp_module(self, module: nn.Module) -> nn.Module:
        self._seg_token_id = module.config.seg_token_id
        if self.rank == 0:
            for line in trained_parts(module):
                logger.info("%s", line)
        with mock.patch.object(fsdp_utils, "_select_fsdp2_wrap_targets", _outside_sam2):
            built = super()._build_fsdp_module(module)
        self._frozen = frozen_hashes(built)
        return built

    def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Save a checkpoint, unless a frozen weight has changed."""
        check_frozen(self._frozen, self.module)
        super().save_checkpoint(*args, **kwargs)
        if self.rank == 0:
            logger.info("frozen  all %d tensors are those of model.path, bit by bit", len(self._frozen))

    def forward_backward_batch(self, data: TensorDict, loss_function: Any, forward_only: bool = False) -> Any:
        """Run the micro-batches of a batch; each knows the step, and the rows with masks and masks of all processes."""
        counts = [len(row["rles"]) for row in tensordict_utils.get(data, "true_masks")]
        totals = torch.tensor([sum(map(bool, counts)), sum(counts)], device=data["input_ids"].device)
        torch.distributed.all_reduce(totals, group=self.get_data_parallel_group())
        rows, masks = totals.tolist()
        step = self.lr_scheduler.last_epoch  # comes back with a checkpoint
        tensordict_utils.assign_non_tensor(data, all_mask_rows=rows, all_masks=masks, step=step)
        return super().forward_backward_batch(data, loss_function, forward_only)

    def prepare_model_inputs(self, micro_batch: TensorDict) -> tuple[dict[str, Any], dict[str, Any]]:
        """Say which tokens are `[SEG]` to decode: those under loss, each about the image of its row."""
        inputs, output_args = super().prepare_model_inputs(micro_batch)
        ids, has_loss = micro_batch["input_ids"], micro_batch["loss_mask"].values().bool()
        lengths = ids.offsets().diff()
        row = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)
        image_of_seg = torch.where((ids.values() == self._seg_token_id) & has_loss, row, -1)
        packed = tensordict_utils.get_non_tensor_data(micro_batch, "use_remove_padding", default=True)
        pieces = [image_of_seg] if packed else image_of_seg.split(lengths.tolist())
        inputs["image_of_seg"] = _filled(pieces, inputs["input_ids"].shape[1])
        return inputs, output_args

    def prepare_model_outputs(
        self, output: Any, output_args: dict[str, Any], micro_batch: TensorDict, logits_processor_func: Any
    ) -> dict[str, Any]:
        """Add the masks, which the loss takes out again."""
        outputs = super().prepare_model_outputs(output, output_args, micro_batch, logits_processor_func)
        return {**outputs, "masks": output.masks}


def _outside_sam2(module: nn.Module, classes: Sequence[str]) -> list[nn.Module]:
    """Return what FSDP2 shards on its own: nothing of SAM2, which reads embeddings' weights without calling them."""
    inside = {part for name, part in module.named_modules() if "sam2." in name}
    return [part for part in _wrap_targets(module, classes) if part not in inside]


def _filled(pieces: Sequence[Tensor], length: int) -> Tensor:
    """Stack `[l]` tensors to `[rows, length]`, filled up with -1."""
    return torch.stack([nn.functional.pad(piece, (0, length - len(piece)), value=-1) for piece in pieces])


@EngineRegistry.register(
    model_type="language_model", backend=["fsdp", "fsdp2"], device="cuda", vendor=["nvidia", "amd"]
)
class SegmentFSDPEngine(SegmentEngineMixin, FSDPEngineWithLMHead):
    """R-Sa2VA on accelerators."""


@EngineRegistry.register(model_type="language_model", backend=["fsdp", "fsdp2"], device="cpu", vendor="cpu")
class SegmentCpuFSDPEngine(SegmentEngineMixin, CpuFSDPEngineWithLMHead):
    """R-Sa2VA on machines without an accelerator."""
