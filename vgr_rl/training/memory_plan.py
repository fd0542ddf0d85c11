"""What each part of a run takes of a GPU and of a node, whether it fits, and the knob where it does not.

docs/memory.md has the formulas.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from omegaconf import DictConfig

from vgr_rl.grounding.geometry import ResizeRule
from vgr_rl.training.cluster import GIB, Cluster
from vgr_rl.training.memory import Parts, Shapes, Training, human, value_bytes
from vgr_rl.training.model_spec import ModelSpec

_USABLE = 0.95  # of a GPU: the rest is the CUDA context, fragments and what no formula knows
PROCESS = 3 * GIB // 4  # what a process holds once torch, verl and vLLM are imported
_OTHERS = 4  # driver, task runner, TransferQueue, Ray's own
_FRAMES, _RGB, _FLOAT32 = 2, 3, 4
_STATE = "trainer.nnodes or trainer.n_gpus_per_node (more), or model.lora_rank"
_MICRO = "actor_rollout_ref.actor.ppo_max_token_len_per_gpu (or, without use_dynamic_bsz, ppo_micro_batch_size_per_gpu)"
_ROLLOUT = "actor_rollout_ref.rollout.gpu_memory_utilization, or free_cache_engine=true"
_KNOBS = {
    "weights": _STATE,
    "gradients": _STATE,
    "optimiser": _STATE,
    "reference": "actor_rollout_ref.actor.use_kl_loss",
    "gathered layers": _STATE,
    "activations": _MICRO,
    "logits": _MICRO,
    "rollout weights": "actor_rollout_ref.rollout.tensor_model_parallel_size",
    "KV cache": _ROLLOUT,
    "judge weights": "reward.reward_model.rollout.tensor_model_parallel_size, or a smaller judge.model",
    "judge KV cache": "reward.reward_model.rollout.gpu_memory_utilization",
    "images in flight": "data.train_batch_size or model.max_pixels",
    "offloaded state": "actor_rollout_ref.actor.fsdp_config.param_offload and optimizer_offload",
    "processes": "actor_rollout_ref.rollout.agent.num_workers or reward.num_workers",
}


@dataclass(frozen=True, slots=True)
class Needs:
    """Bytes that a run takes, by part.

    Attributes:
        update: of a worker while it trains.
        rollout: of a worker while it generates; the KV cache takes what is left of gpu_memory_utilization.
        judge: of a GPU of `judge=pool`; empty with another judge.
        host: of a node; of one with a judge no more is known than its GPUs.
        sequence: keys and values of one sequence of the greatest length; 0 without rollouts.
        knobs: what to change when a part is too large.
    """

    update: Parts
    rollout: Parts
    judge: Parts
    host: Parts
    sequence: int
    knobs: Mapping[str, str] = field(default_factory=lambda: _KNOBS)

    def lines(self) -> list[tuple[str, str]]:
        """Return (heading, text) of each sum, largest parts first."""
        sums = (("training", self.update), ("rollouts", self.rollout), ("judge", self.judge), ("node", self.host))
        return [
            ("memory", f"{what} about {human(sum(parts.values()))}: {_listed(parts)}") for what, parts in sums if parts
        ]


def estimate(
    config: DictConfig,
    hf_config: Any,
    counts: Mapping[str, int],
    spec: ModelSpec,
    longest_prompt: int,
    cluster: Cluster,
    judge_parameters: int = 0,
    beside_adapters: int | None = None,
) -> Needs:
    """Estimate what a run takes.

    Args:
        config: the configuration.
        hf_config: the model's Hugging Face config.
        counts: its parameters by component.
        spec: its resize rule.
        longest_prompt: tokens of the longest prompt.
        cluster: the machines; a GPU's memory decides how large vLLM makes the KV cache.
        judge_parameters: of the model of `judge=pool`; 0 with another judge.
        beside_adapters: see `Training`.
    """
    shapes = Shapes.of(hf_config)
    refs, rule = config.actor_rollout_ref, spec.resize_rule
    image_tokens = min(longest_prompt, rule.max_pixels // rule.factor**2)
    state = state_parts(config, shapes, counts, beside_adapters)
    serving = _named("rollout weights", "KV cache", _serving(config, refs.rollout, sum(counts.values()), cluster))
    parked = {
        "weights": refs.actor.fsdp_config.param_offload,
        "optimiser": refs.actor.fsdp_config.optimizer_offload,
        "reference": refs.ref.fsdp_config.param_offload,
    }
    working = {name: size for name, size in state.items() if name != "reference" or not parked[name]}
    working |= _training(config, image_tokens).one_pass(shapes, counts)
    if not refs.rollout.free_cache_engine:
        working |= serving
    resting = {name: state[name] for name, is_parked in parked.items() if not is_parked}
    workers = config.trainer.n_gpus_per_node
    host = {
        "offloaded state": workers * sum(state[name] for name, is_parked in parked.items() if is_parked),
        "images in flight": config.data.train_batch_size * images_bytes(rule, image_tokens),
        "processes": (2 * workers + refs.rollout.agent.num_workers + config.reward.num_workers + _OTHERS) * PROCESS,
    }
    length = refs.rollout.max_model_len or _longest(config)
    sequence = length * shapes.cache_a_token(value_bytes(refs.rollout.dtype)) // refs.rollout.tensor_model_parallel_size
    pool, judge = config.reward.reward_model, dict[str, int]()
    if judge_parameters:
        served = _serving(config, pool.rollout, judge_parameters, cluster)
        judge = _named("judge weights", "judge KV cache", served)
    if config.hardware.platform == "cpu":
        servers = pool.n_gpus_per_node // pool.rollout.tensor_model_parallel_size
        held = {name: workers * size for name, size in (working | serving).items()}
        return Needs({}, {}, {}, held | {name: servers * size for name, size in judge.items()} | host, sequence)
    return Needs(working, resting | serving, judge, host, sequence)


def check(needs: Needs, cluster: Cluster) -> list[str]:
    """Return what does not fit, with the size of its largest part and the knob for it."""
    gpu = cluster.gpu_bytes and int(_USABLE * cluster.gpu_bytes)
    problems = []
    for what, parts in (("training of a worker", needs.update), ("rollouts of a worker", needs.rollout)):
        problems += _too_much(what, parts, gpu, needs.knobs)
    problems += _too_much("a GPU of the judge", needs.judge, gpu, needs.knobs)
    problems += _too_much("a node", needs.host, cluster.host_bytes, needs.knobs)
    cache = needs.rollout.get("KV cache")
    if cache is not None and cache < needs.sequence:
        problems.append(
            f"the KV cache has about {human(cache)} but a sequence of the greatest length takes "
            f"{human(needs.sequence)}: raise actor_rollout_ref.rollout.gpu_memory_utilization or "
            "tensor_model_parallel_size, or lower max_model_len"
        )
    if needs.judge.get("judge KV cache") == 0:
        problems.append(
            f"memory: the judge's weights ({human(needs.judge['judge weights'])} a GPU) leave no room for a KV cache: "
            f"{_KNOBS['judge KV cache']}, or {_KNOBS['judge weights']}"
        )
    return problems


def images_bytes(rule: ResizeRule, image_tokens: int) -> int:
    """Return the bytes of a prompt's images after the processor: float32 patches, each frame twice."""
    return image_tokens * rule.factor**2 * _FRAMES * _RGB * _FLOAT32


def _too_much(what: str, parts: Parts, room: int | None, knobs: Mapping[str, str]) -> list[str]:
    needed = sum(parts.values())
    if room is None or needed <= room:
        return []
    largest = max(parts, key=lambda name: parts[name])
    return [
        f"memory: {what} takes about {human(needed)} but there are {human(room)}; most of it are {largest} "
        f"({human(parts[largest])}): {knobs[largest]}"
    ]


def state_parts(
    config: DictConfig, shapes: Shapes, counts: Mapping[str, int], beside_adapters: int | None = None
) -> dict[str, int]:
    """Return the bytes of a worker's shard of the weights, gradients, Adam's moments and the reference policy."""
    training = replace(_training(config, 0), beside_adapters=beside_adapters)
    reference = config.actor_rollout_ref.actor.use_kl_loss or config.algorithm.use_kl_in_reward
    has_reference = reference and not training.lora_rank  # the base of adapters is their reference
    bytes_ = sum(counts.values()) * training.state_bytes // training.workers
    return {**training.state(shapes, counts), "reference": bytes_ if has_reference else 0}


def _training(config: DictConfig, image_tokens: int) -> Training:
    refs, longest = config.actor_rollout_ref, _longest(config)
    actor = refs.actor
    tokens = actor.ppo_max_token_len_per_gpu
    if not actor.use_dynamic_bsz:
        tokens = longest * (actor.ppo_micro_batch_size_per_gpu or actor.ppo_mini_batch_size)
    return Training(
        workers=config.trainer.nnodes * config.trainer.n_gpus_per_node,
        lora_rank=refs.model.lora_rank,
        frozen=frozenset(config.model.freeze),
        state_bytes=value_bytes(actor.fsdp_config.model_dtype),
        value_bytes=value_bytes(actor.fsdp_config.dtype),
        tokens=tokens,
        image_tokens=min(tokens, tokens * image_tokens // longest),
        checkpointing=refs.model.enable_gradient_checkpointing,
    )


def _serving(config: DictConfig, rollout: DictConfig, parameters: int, cluster: Cluster) -> tuple[int, int | None]:
    """Return the bytes of a model's weights and of its KV cache on a GPU that vLLM serves it on; None is not known."""
    weights = parameters * value_bytes(rollout.dtype) // rollout.tensor_model_parallel_size
    if config.hardware.platform == "cpu":
        return weights, int(config.hardware.env.VLLM_CPU_KVCACHE_SPACE) * GIB
    reserved = None if cluster.gpu_bytes is None else int(rollout.gpu_memory_utilization * cluster.gpu_bytes)
    return weights, None if reserved is None else max(0, reserved - weights)


def _named(weights: str, cache: str, sizes: tuple[int, int | None]) -> dict[str, int]:
    return {name: size for name, size in zip((weights, cache), sizes, strict=True) if size is not None}


def _longest(config: DictConfig) -> int:
    return int(config.data.max_prompt_length + config.data.max_response_length)


def _listed(parts: Parts) -> str:
    sizes = sorted(((size, name) for name, size in parts.items() if size), reverse=True)
    return ", ".join(f"{name} {human(size)}" for size, name in sizes)
