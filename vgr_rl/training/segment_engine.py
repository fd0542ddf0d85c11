"""FSDP engines of R-Sa2VA's cold start; imported in the training processes through `model.external_lib`.

They differ from verl's in what a pass gives: the masks of the `[SEG]` under loss.
"""

from typing import Any

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils
from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from vgr_rl.cpu.engine import CpuFSDPEngineWithLMHead
from vgr_rl.segment import auto
from vgr_rl.training.segment_build import SegmentBuildMixin

auto.register()


class SegmentEngineMixin(SegmentBuildMixin):
    """Decodes what is under loss; mixed into an FSDP engine with a language-model head."""

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
        has_loss = micro_batch["loss_mask"].values().bool()
        row = torch.arange(len(micro_batch), device=has_loss.device)
        inputs["image_of_seg"] = self.image_of_seg(micro_batch, has_loss, row, inputs["input_ids"].shape[1])
        return inputs, output_args

    def prepare_model_outputs(
        self, output: Any, output_args: dict[str, Any], micro_batch: TensorDict, logits_processor_func: Any
    ) -> dict[str, Any]:
        """Add the masks, which the loss takes out again."""
        outputs = super().prepare_model_outputs(output, output_args, micro_batch, logits_processor_func)
        return {**outputs, "masks": output.masks}


@EngineRegistry.register(
    model_type="language_model", backend=["fsdp", "fsdp2"], device="cuda", vendor=["nvidia", "amd"]
)
class SegmentFSDPEngine(SegmentEngineMixin, FSDPEngineWithLMHead):
    """R-Sa2VA on accelerators."""


@EngineRegistry.register(model_type="language_model", backend=["fsdp", "fsdp2"], device="cpu", vendor="cpu")
class SegmentCpuFSDPEngine(SegmentEngineMixin, CpuFSDPEngineWithLMHead):
    """R-Sa2VA on machines without an accelerator."""
