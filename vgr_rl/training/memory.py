"""How much memory a run needs, by part, from the sizes in the configuration. Estimates, not promises."""

from dataclasses import dataclass
from typing import Any

BYTES = {"fp32": 4, "float32": 4, "bf16": 2, "bfloat16": 2, "fp16": 2, "float16": 2, "half": 2}
RGB_CHANNELS = 3
COMPONENTS = ("vision", "language", "head")


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes by part.

    Attributes:
        policy_state: fp32 master weights, gradients and the two Adam moments, for each policy worker.
        rollout_weights: weights of the rollout engine, for each of its workers.
        images_in_flight: pixel tensors of one step's prompts on the host, as float32 patches, shared by each group.
    """

    policy_state: int
    rollout_weights: int
    images_in_flight: int


def estimate(
    parameters: int,
    trainable: int,
    workers: int,
    tensor_parallel: int,
    rollout_dtype: str,
    prompts: int,
    image_tokens: int,
    patch_pixels: int,
) -> MemoryEstimate:
    """Estimate from counts.

    Args:
        parameters: all parameters.
        trainable: those that get gradients.
        workers: policy workers that share the state (FSDP).
        tensor_parallel: workers of one rollout engine.
        rollout_dtype: its data type.
        prompts: prompts of one step.
        image_tokens: image tokens of the largest prompt.
        patch_pixels: pixels of one image token times the temporal patch size.
    """
    state = (4 * parameters + 12 * trainable) // workers
    weights = BYTES.get(rollout_dtype, 2) * parameters // tensor_parallel
    images = prompts * image_tokens * patch_pixels * RGB_CHANNELS * BYTES["fp32"]
    return MemoryEstimate(state, weights, images)


def human(count: int) -> str:
    """Return a number of bytes with a unit, such as `1.5 GiB`."""
    value: float = count
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:.3g} TiB"


def count_parameters(hf_config: Any) -> dict[str, int]:
    """Count the parameters of a checkpoint by component (`vision`, `language`, `head`) without its weights."""
    import torch
    from transformers import AutoModelForImageTextToText

    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(hf_config)
    counts = dict.fromkeys(COMPONENTS, 0)
    for name, parameter in model.named_parameters():
        counts[parameter_component(name)] += parameter.numel()
    return counts


def parameter_component(name: str) -> str:
    """Return the component that a parameter belongs to, by its name in the Hugging Face model.

    `vision` is the vision tower with its merger, `head` the output embedding, `language` everything else.
    """
    if "visual" in name:
        return "vision"
    return "head" if name.startswith("lm_head") else "language"
