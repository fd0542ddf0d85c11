"""How an FSDP engine holds R-Sa2VA: what trains, what gets adapters, how it is sharded, and what stays as it is."""

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

from vgr_rl.segment.model import RSa2VA
from vgr_rl.training.segment_parts import check_frozen, choose_trained, frozen_hashes, language_linears, trained_parts

logger = logging.getLogger("vgr_rl.sft")
_wrap_targets = fsdp_utils._select_fsdp2_wrap_targets


class SegmentBuildMixin:
    """Builds and saves R-Sa2VA; mixed into an FSDP engine with a language-model head.

    Attributes:
        train_embeddings: whether embedding and head train beside adapters; set before the engine is initialised.
    """

    train_embeddings = False

    def _build_module(self) -> RSa2VA:
        if self.engine_config.ulysses_sequence_parallel_size > 1:
            raise ValueError("engine.ulysses_sequence_parallel_size>1 splits responses, whose [SEG] are then not found")
        module: RSa2VA = super()._build_module()
        apply_monkey_patch(module.vlm, use_remove_padding=self.use_remove_padding)
        self._choose_trained(module)
        return module

    def _choose_trained(self, module: RSa2VA) -> None:
        choose_trained(module, self._is_lora, self.train_embeddings)

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

    def image_of_seg(self, micro_batch: TensorDict, chosen: Tensor, image_of_row: Tensor, length: int) -> Tensor:
        """Say of each token of a pass which image its mask is about, -1 for no mask, `[B, L]` or packed `[1, L]`.

        Args:
            micro_batch: has `input_ids`, jagged `[B, l]`.
            chosen: whether a token, if it is `[SEG]`, is decoded, `[tokens]`.
            image_of_row: the image of each row, `[B]`.
            length: L of the pass.
        """
        ids = micro_batch["input_ids"]
        lengths = ids.offsets().diff()
        image = image_of_row.repeat_interleave(lengths)
        image_of_seg = torch.where((ids.values() == self._seg_token_id) & chosen, image, -1)
        packed = tensordict_utils.get_non_tensor_data(micro_batch, "use_remove_padding", default=True)
        pieces = [image_of_seg] if packed else image_of_seg.split(lengths.tolist())
        return _filled(pieces, length)


def _outside_sam2(module: nn.Module, classes: Sequence[str]) -> list[nn.Module]:
    """Return what FSDP2 shards on its own: nothing of SAM2, which reads embeddings' weights without calling them."""
    inside = {part for name, part in module.named_modules() if "sam2." in name}
    return [part for part in _wrap_targets(module, classes) if part not in inside]


def _filled(pieces: Sequence[Tensor], length: int) -> Tensor:
    """Stack `[l]` tensors to `[rows, length]`, filled up with -1."""
    return torch.stack([nn.functional.pad(piece, (0, length - len(piece)), value=-1) for piece in pieces])
