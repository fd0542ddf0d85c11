"""What GRPO of R-Sa2VA needs of a configuration, and what its plan says about masks."""

from typing import TYPE_CHECKING

from omegaconf import DictConfig

from vgr_rl.segment.auto import MODEL_TYPE
from vgr_rl.training.model_spec import ModelSpec

if TYPE_CHECKING:
    from vgr_rl.segment.model import RSa2VAConfig


def check_segment_policy(config: DictConfig, spec: ModelSpec) -> list[str]:
    """Return what cannot be had with an R-Sa2VA, or only with one."""
    weight = config.masks.best_rollout_weight
    if spec.model_type != MODEL_TYPE:
        return [] if not weight else [f"masks.best_rollout_weight={weight} but model.path={spec.path} is no R-Sa2VA"]
    refs = config.actor_rollout_ref
    refused = {
        f"model.freeze={list(config.model.freeze)}": bool(config.model.freeze),
        f"segmenter.model={config.segmenter.model}": config.segmenter.model is not None,
        f"judge={config.judge.name}": config.reward.reward_model.enable,
        "algorithm.filter_groups.enable=true": (config.algorithm.get("filter_groups") or {}).get("enable", False),
        f"actor_rollout_ref.rollout.load_format={refs.rollout.load_format}": refs.rollout.load_format != "dummy",
        f"actor_rollout_ref.model.lora_adapter_path={refs.model.lora_adapter_path}": (
            refs.model.lora_adapter_path is not None
        ),
        "actor_rollout_ref.model.lora.merge=false": refs.model.lora_rank and not refs.model.lora.merge,
        f"actor_rollout_ref.actor.ulysses_sequence_parallel_size={refs.actor.ulysses_sequence_parallel_size}": (
            refs.actor.ulysses_sequence_parallel_size > 1
        ),
    }
    reasons = (
        "what trains of R-Sa2VA is its language model, or adapters on it",
        "R-Sa2VA makes its masks itself",
        "its rewards wait for masks while the judge's pool does not; use judge=endpoint",
        "groups are filtered before their masks are made",
        "vLLM gets the weights of R-Sa2VA from the policy; set it to dummy",
        "no adapter is read for R-Sa2VA; merge it into model.path",
        "vLLM is sent merged weights of R-Sa2VA",
        "a response is decoded as a whole; set it to 1",
    )
    return [f"{given} but {why}" for (given, is_on), why in zip(refused.items(), reasons, strict=True) if is_on]


def trained_of(config: DictConfig) -> str:
    """Say what trains of an R-Sa2VA."""
    rank = config.actor_rollout_ref.model.lora_rank
    own = f"LoRA rank {rank} adapters on the language model" if rank else "the language model's weights"
    frozen = ["embeddings"] * (rank > 0) + ["vision tower"]
    if weight := config.masks.best_rollout_weight:
        own += f", and the projector by {weight:g} x the mask loss of each group's best rollout"
    else:
        frozen.append("projector")
    return f"{own}; {', '.join(frozen)} and SAM2 are frozen, checked bit by bit at each checkpoint"


def trained_beside_adapters(config: DictConfig, hf_config: "RSa2VAConfig") -> int:
    """Count the parameters that train themselves, not through adapters, without weights."""
    import torch

    from vgr_rl.segment.model import RSa2VA
    from vgr_rl.training.segment_parts import choose_trained

    with torch.device("meta"):
        module = RSa2VA(hf_config)
    lora, projector = config.actor_rollout_ref.model.lora_rank > 0, config.masks.best_rollout_weight > 0
    choose_trained(module, lora, projector=projector, decoder=False)
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
