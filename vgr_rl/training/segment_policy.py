"""The policy R-Sa2VA: FSDP engines that also decode masks, and the workers that ask them to.

Imported in the workers through `actor_rollout_ref.model.external_lib`. vLLM writes responses with `[SEG]` as text; one
pass over them with the current weights gives the hidden state at each `[SEG]`, and of it its mask, as run lengths.
SAM2's image encoder runs once for each image of a step, whatever the number of its rollouts.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from tensordict import NonTensorStack, TensorDict
from torch import Tensor
from verl.single_controller.base.decorator import make_nd_compute_dataproto_dispatch_fn, register
from verl.utils import tensordict_utils
from verl.utils.device import get_device_id
from verl.utils.seqlen_balancing import rearrange_micro_batches
from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead
from verl.workers.engine_workers import ActorRolloutRefWorker

from vgr_rl.cpu.engine import CpuFSDPEngineWithLMHead
from vgr_rl.grounding import Rle, Size
from vgr_rl.segment import auto
from vgr_rl.segment.model import ImageFeatures, RSa2VA
from vgr_rl.segment.predict import normalised, to_rles
from vgr_rl.training import best_rollout, shared_features
from vgr_rl.training.policy_mixin import EvidenceEngineMixin
from vgr_rl.training.segment_build import SegmentBuildMixin
from vgr_rl.training.segment_parts import choose_trained
from vgr_rl.verl_patches import leave_vllm_out_of_policy_workers

leave_vllm_out_of_policy_workers()
auto.register()

MASK_FIELDS = ("input_ids", "position_ids", "responses", "multi_modal_inputs")
"""What of a rollout the pass for its masks reads."""

Masks = list[Rle] | None
"""Of one response: one mask a `[SEG]`; None when it has `[SEG]` but no picture."""


class SegmentPolicyMixin(SegmentBuildMixin, EvidenceEngineMixin):
    """Trains the language model of R-Sa2VA and decodes masks; mixed into an FSDP engine with a language-model head."""

    def _choose_trained(self, module: RSa2VA) -> None:  # no gradient of a reward reaches what makes the masks
        choose_trained(module, self._is_lora, projector=module.config.train_projector, decoder=False)

    def forward_backward_batch(self, data: TensorDict, loss_function: Any, forward_only: bool = False) -> Any:
        """Run the micro-batches of a batch; those of an update know how many best rollouts it has on all processes."""
        if best_rollout.FIELD in data and not forward_only:
            count = torch.tensor(
                sum(bool(own["segs"]) for own in best_rollout.best_masks(data)), device=get_device_id()
            )
            torch.distributed.all_reduce(count, group=self.get_data_parallel_group())
            tensordict_utils.assign_non_tensor(data, all_best=int(count))
        return super().forward_backward_batch(data, loss_function, forward_only)

    def prepare_model_inputs(self, micro_batch: TensorDict) -> tuple[dict[str, Any], dict[str, Any]]:
        """Say, in an update, which `[SEG]` of best rollouts to decode, and about which pictures."""
        inputs, output_args = super().prepare_model_inputs(micro_batch)
        if _learns_masks(micro_batch):
            best = best_rollout.best_masks(micro_batch)
            number = torch.tensor([bool(own["segs"]) for own in best], device=get_device_id()).cumsum(0) - 1
            chosen = self._of_best(micro_batch, best)
            inputs["image_of_seg"] = self.image_of_seg(micro_batch, chosen, number, inputs["input_ids"].shape[1])
            rows = zip(micro_batch["multi_modal_inputs"], best, strict=True)
            if shown := [str(shared_features.referred_uid(each)) for each, own in rows if own["segs"]]:
                inputs |= _images(shown, shared_features.get(shown, shared_features.PICTURES), {})
        return inputs, output_args

    def prepare_model_outputs(
        self, output: Any, output_args: dict[str, Any], micro_batch: TensorDict, logits_processor_func: Any
    ) -> dict[str, Any]:
        """Add, in an update, the masks of best rollouts, which the loss takes out again."""
        outputs = super().prepare_model_outputs(output, output_args, micro_batch, logits_processor_func)
        return {**outputs, "masks": output.masks} if _learns_masks(micro_batch) else outputs

    def get_per_tensor_param(self, *args: Any, **kwargs: Any) -> tuple[Iterator[tuple[str, Tensor]], Any]:
        """Return the weights of the vision-language model, under the names that it has on its own."""
        weights, adapters = super().get_per_tensor_param(*args, **kwargs)
        if adapters is not None:
            raise ValueError("actor_rollout_ref.model.lora.merge=false but only merged weights of R-Sa2VA are served")
        own = ((name.removeprefix("vlm."), weight) for name, weight in weights if name.startswith("vlm."))
        return own, None

    @torch.no_grad()
    def decode_masks(self, data: TensorDict, max_tokens: int) -> list[Masks]:
        """Return the masks of each response at the size of its picture, with the weights as they are.

        Args:
            data: rollouts with `MASK_FIELDS`.
            max_tokens: of a micro-batch.
        """
        tensordict_utils.assign_non_tensor(data, use_remove_padding=self.use_remove_padding, temperature=1.0)
        group = self.get_data_parallel_group()
        micro_batches, places = rearrange_micro_batches(data, max_tokens, group, same_micro_num_in_dp=True)
        found: list[Masks] = [None] * len(data)
        embedded: dict[str, ImageFeatures] = {}
        try:
            for micro_batch, rows in zip(micro_batches, places, strict=True):
                masks = self._masks(micro_batch.to(get_device_id()), embedded)
                for row, own in zip(rows, masks, strict=True):
                    found[row] = own
        finally:
            self._sharing.forget()
        return found

    def _masks(self, micro_batch: TensorDict, embedded: dict[str, ImageFeatures]) -> list[Masks]:
        """Decode a micro-batch; `embedded` has the images that were met before, and gets the others."""
        counts = self._segs(micro_batch)
        uids = [shared_features.referred_uid(each) for each in micro_batch["multi_modal_inputs"]]
        wanted = list(dict.fromkeys(uid for uid, count in zip(uids, counts, strict=True) if uid and count))
        order = sorted(wanted, key=lambda uid: uid not in embedded)  # known ones first, as `RSa2VA.forward` takes them
        pictures = shared_features.get(order, shared_features.PICTURES) if order else {}
        inputs, _ = self.prepare_model_inputs(micro_batch)
        if order:
            place = {uid: number for number, uid in enumerate(order)}
            rows = torch.tensor([place.get(uid, -1) if uid else -1 for uid in uids], device=get_device_id())
            chosen = self._in_response(micro_batch)
            inputs["image_of_seg"] = self.image_of_seg(micro_batch, chosen, rows, inputs["input_ids"].shape[1])
            inputs |= _images(order, pictures, embedded)
        output = self.module(**inputs, use_cache=False, masks_only=True)
        for number, uid in enumerate(order):
            embedded[uid] = tuple(level[number : number + 1] for level in output.image_features)
        logits = iter(output.masks.split([count for uid, count in zip(uids, counts, strict=True) if uid and count]))
        return [
            (to_rles(next(logits), Size(*pictures[uid]["size"])) if uid else None) if count else []
            for uid, count in zip(uids, counts, strict=True)
        ]

    def _in_response(self, micro_batch: TensorDict) -> Tensor:
        """Say of each token whether it belongs to the response, `[tokens]`."""
        of_row = zip(micro_batch["input_ids"].unbind(), micro_batch["responses"].unbind(), strict=True)
        return torch.cat([torch.arange(len(ids), device=ids.device) >= len(ids) - len(own) for ids, own in of_row])

    def _of_best(self, micro_batch: TensorDict, best: Sequence[best_rollout.BestMasks]) -> Tensor:
        """Say of each token whether it is a `[SEG]` that the loss of best rollouts takes, `[tokens]`."""
        chosen = torch.zeros_like(micro_batch["input_ids"].values(), dtype=torch.bool)
        ends = micro_batch["input_ids"].offsets()[1:]
        for end, response, own in zip(ends, micro_batch["responses"].unbind(), best, strict=True):
            if own["segs"]:
                places = (response == self._seg_token_id).nonzero()[:, 0]
                chosen[end - len(response) + places[list(own["segs"])]] = True
        return chosen

    def _segs(self, micro_batch: TensorDict) -> list[int]:
        return [int((response == self._seg_token_id).sum()) for response in micro_batch["responses"].unbind()]


def _learns_masks(micro_batch: TensorDict) -> bool:
    return best_rollout.FIELD in micro_batch and torch.is_grad_enabled()


def _images(order: list[str], pictures: dict[str, Any], embedded: dict[str, ImageFeatures]) -> dict[str, Any]:
    """Return what `RSa2VA.forward` takes of images: the features of known ones, then the pixels of the others."""
    known = [embedded[uid] for uid in order if uid in embedded]
    new = [pictures[uid]["picture"] for uid in order if uid not in embedded]
    images: dict[str, Any] = {}
    if known:
        images["image_features"] = tuple(torch.cat(levels) for levels in zip(*known, strict=True))
    if new:
        images["sam2_pixels"] = normalised(torch.stack(new).to(get_device_id()))
    return images


class SegmentWorker(ActorRolloutRefWorker):
    """verl's worker, which also decodes masks."""

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="actor"))
    def decode_masks(self, data: TensorDict) -> TensorDict:
        """Return `masks` of rollouts, {"rles": see `Masks`} each."""
        tensordict_utils.maybe_fix_3d_position_ids(data)
        engine = self.actor.engine
        with engine.eval_mode():
            found = engine.decode_masks(data, engine.engine_config.infer_max_token_len_per_gpu)
        return TensorDict({"masks": NonTensorStack(*({"rles": masks} for masks in found))}, batch_size=[len(found)])


@EngineRegistry.register(
    model_type="language_model", backend=["fsdp", "fsdp2"], device="cuda", vendor=["nvidia", "amd"]
)
class SegmentPolicyFSDPEngine(SegmentPolicyMixin, FSDPEngineWithLMHead):
    """The policy R-Sa2VA on accelerators."""


@EngineRegistry.register(model_type="language_model", backend=["fsdp", "fsdp2"], device="cpu", vendor="cpu")
class SegmentPolicyCpuFSDPEngine(SegmentPolicyMixin, CpuFSDPEngineWithLMHead):
    """The policy R-Sa2VA on machines without an accelerator."""
