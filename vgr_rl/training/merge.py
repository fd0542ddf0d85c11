"""From FSDP shards to a verified Hugging Face folder."""

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, GenerationConfig

from vgr_rl.errors import ConfigError
from vgr_rl.segment import auto
from vgr_rl.training.shards import (
    LoraScale,
    Shard,
    assemble,
    differing_tensors,
    fold_adapter,
    lora_scale,
    read_shards,
)

logger = logging.getLogger("vgr_rl.merge")

PROBE_ROWS, PROBE_TOKENS = 4, 64
# Largest difference of a token's log-prob that rounding explains (nats): order of summation in float32, and for an
# adapter the difference between (W + BA)x and Wx + BAx; bfloat16 weights of the reference are rounded in the same way.
LOG_PROB_TOLERANCE = 1e-3
# The same for a mask's logit, which is cut at 0; logits of certain pixels are 10 and more.
MASK_TOLERANCE = 1e-2


class MergeMismatch(RuntimeError):
    """The merged model is not the trained one."""


@dataclass(frozen=True, slots=True)
class MergeReport:
    """What the verification found.

    Attributes:
        tensors: number of tensors compared with the shards; 0 when an adapter was folded, which changes them.
        shards: number of shards they were compared with.
        probe_tokens: number of tokens whose log-prob was compared.
        max_log_prob_gap: largest difference of a log-prob, nats.
        max_mask_gap: largest difference of a mask's logit; None for a model without masks.
    """

    tensors: int
    shards: int
    probe_tokens: int
    max_log_prob_gap: float
    max_mask_gap: float | None

    def __str__(self) -> str:
        against = f"{self.shards} shard{'s' if self.shards > 1 else ''}"
        tensors = f"{self.tensors} tensors against {against}" if self.tensors else f"adapter of {against} folded"
        masks = "" if self.max_mask_gap is None else f", logits of their masks within {self.max_mask_gap:.1e}"
        probe = f"log-probs of {self.probe_tokens} probe tokens within {self.max_log_prob_gap:.1e}"
        return f"verified, {tensors}, {probe}{masks}"


def merge_checkpoint(checkpoint: Path, out: Path, dtype: str = "auto", overwrite: bool = False) -> MergeReport:
    """Merge the shards of a checkpoint into a Hugging Face folder, and verify it by tensors and by log-probs.

    `out` appears complete and verified, or not at all. An adapter (LoRA) is folded into the weights.

    Args:
        checkpoint: .../global_step_N of a cold start, or .../global_step_N/actor of a GRPO run (or its parent).
        out: folder to write.
        dtype: float32, bfloat16, or auto for the number type of the shards.
        overwrite: replace `out` when it exists.

    Raises:
        ConfigError: no checkpoint there, or `out` exists.
        MergeMismatch: the saved model differs from the shards.
    """
    checkpoint = checkpoint / "actor" if (checkpoint / "actor" / "fsdp_config.json").is_file() else checkpoint
    if out.exists() and not overwrite:
        raise ConfigError(f"{out} exists; name another folder or pass --overwrite")
    auto.register(checkpoint / "huggingface")
    try:
        shards = read_shards(checkpoint)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    scale = lora_scale(checkpoint)
    whole = assemble(checkpoint, shards)
    torch_dtype = next(iter(whole.values())).dtype if dtype == "auto" else getattr(torch, dtype)
    temporary = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        state = whole if scale is None else fold_adapter(whole, scale)
        _save({key: tensor.to(torch_dtype) for key, tensor in state.items()}, checkpoint, temporary, torch_dtype)
        report = verify(temporary, checkpoint, shards, whole, scale, torch_dtype)
        if out.exists():
            shutil.rmtree(out)
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return report


def verify(
    merged: Path, checkpoint: Path, shards: list[Shard], whole: Shard, scale: LoraScale | None, dtype: torch.dtype
) -> MergeReport:
    """Load a merged model as a user would and compare it with the shards it came from.

    Raises:
        MergeMismatch: naming the tensors, or the largest difference of a log-prob.
    """
    model = AutoModelForImageTextToText.from_pretrained(merged, dtype=dtype).eval()
    if scale is None:
        problems = differing_tensors(dict(model.state_dict()), shards, dtype)
        if problems:
            raise MergeMismatch(f"{merged} differs from {checkpoint}: " + "; ".join(problems[:5]))
    reference = _reference(checkpoint, whole, scale, dtype)
    processor = AutoProcessor.from_pretrained(merged)
    probe = probe_batch(processor, model.config)
    gap = (log_probs(model.float(), probe) - log_probs(reference.float(), probe)).abs().max().item()
    if not gap <= LOG_PROB_TOLERANCE:
        raise MergeMismatch(
            f"{merged} gives log-probs up to {gap:.3g} nats from those of {checkpoint}; at most {LOG_PROB_TOLERANCE} "
            "is rounding"
        )
    mask_gap = None
    if model.config.model_type == auto.MODEL_TYPE:
        mask_gap = (masks(model, probe) - masks(reference, probe)).abs().max().item()
        if not mask_gap <= MASK_TOLERANCE:
            raise MergeMismatch(
                f"{merged} gives masks whose logits are up to {mask_gap:.3g} from those of {checkpoint}; at most "
                f"{MASK_TOLERANCE} is rounding"
            )
    tensors = len(whole) if scale is None else 0
    return MergeReport(tensors, len(shards), PROBE_ROWS * (PROBE_TOKENS - 1), gap, mask_gap)


def probe_batch(processor: Any, config: Any, seed: int = 0) -> dict[str, Tensor]:
    """Return a batch of one image and random text, the same for the same seed; `input_ids` is [rows, tokens]."""
    generator = torch.Generator().manual_seed(seed)
    rule = processor.image_processor
    side = 4 * rule.patch_size * rule.merge_size
    pixels = torch.randint(0, 256, (PROBE_ROWS, side, side, 3), generator=generator, dtype=torch.uint8)
    vision = rule(images=[image.numpy() for image in pixels], return_tensors="pt")
    count = int(vision["image_grid_thw"][0].prod()) // rule.merge_size**2
    special = set(processor.tokenizer.all_special_ids) | set(processor.tokenizer.added_tokens_decoder)
    plain = torch.tensor([token for token in range(len(processor.tokenizer)) if token not in special])
    text = plain[torch.randint(len(plain), (PROBE_ROWS, PROBE_TOKENS), generator=generator)]
    image = torch.tensor([[config.vision_start_token_id, *[config.image_token_id] * count, config.vision_end_token_id]])
    input_ids = torch.cat([image.expand(PROBE_ROWS, -1), text], dim=1)
    return {
        "input_ids": input_ids,
        "attention_mask": torch.ones_like(input_ids),
        "mm_token_type_ids": (input_ids == config.image_token_id).long(),
        "pixel_values": vision["pixel_values"],
        "image_grid_thw": vision["image_grid_thw"],
    }


@torch.no_grad()
def log_probs(model: torch.nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Return the log-prob of each text token of a probe after its first, [rows, PROBE_TOKENS - 1]."""
    logits = model(**batch).logits[:, -PROBE_TOKENS:-1].float()
    targets = batch["input_ids"][:, -PROBE_TOKENS + 1 :]
    return logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0]


@torch.no_grad()
def masks(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Return what an R-Sa2VA makes of each row's last token about a picture of noise, logits [rows, height, width]."""
    generator = torch.Generator().manual_seed(0)
    side = model.config.sam2_config.prompt_encoder_config.image_size
    image_of_seg = torch.full_like(batch["input_ids"], -1)
    image_of_seg[:, -1] = 0
    found: Tensor = model(
        **batch, image_of_seg=image_of_seg, sam2_pixels=torch.randn(1, 3, side, side, generator=generator)
    ).masks
    return found


def _save(state: Shard, checkpoint: Path, out: Path, dtype: torch.dtype) -> None:
    source = checkpoint / "huggingface"
    model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(source), dtype=dtype)
    model.load_state_dict(state, strict=True)
    if (source / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(source)
    model.save_pretrained(out)
    AutoProcessor.from_pretrained(source).save_pretrained(out)


def _reference(checkpoint: Path, whole: Shard, scale: LoraScale | None, dtype: torch.dtype) -> torch.nn.Module:
    """Return the trained model with its shards loaded as they are, an adapter beside its weights, not folded."""
    model: Any = AutoModelForImageTextToText.from_config(
        AutoConfig.from_pretrained(checkpoint / "huggingface"), dtype=dtype if scale is None else torch.float32
    )
    if scale is not None:
        from peft import LoraConfig, get_peft_model

        adapted = sorted(
            {key.split(".lora_A.")[0].removeprefix("base_model.model.") for key in whole if ".lora_A." in key}
        )
        model = get_peft_model(model, LoraConfig(r=scale.rank, lora_alpha=scale.alpha, target_modules=adapted))
    model.load_state_dict(whole, strict=True)
    return model.eval()
