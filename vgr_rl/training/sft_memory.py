"""What a cold start takes of memory: the formulas of docs/memory.md without rollouts."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig

from vgr_rl.grounding.geometry import ResizeRule
from vgr_rl.training.memory import Shapes, Training, value_bytes
from vgr_rl.training.memory_plan import PROCESS, Needs, images_bytes

_AHEAD = 2  # batches that torch's DataLoader prepares for each of its workers
_STATE = "trainer.nnodes or trainer.n_gpus_per_node (more), or model.lora_rank"
_MICRO = "data.max_token_len_per_gpu (or, without data.use_dynamic_bsz, data.micro_batch_size_per_gpu)"
_KNOBS = {
    "weights": _STATE,
    "gradients": _STATE,
    "optimiser": _STATE,
    "gathered layers": _STATE,
    "activations": _MICRO,
    "logits": _MICRO,
    "images in flight": "data.num_workers or data.train_batch_size",
    "offloaded state": "engine.param_offload and engine.optimizer_offload",
    "processes": "trainer.n_gpus_per_node",
}


def estimate(
    config: DictConfig,
    hf_config: Any,
    counts: Mapping[str, int],
    rule: ResizeRule,
    longest: int,
    image_tokens: float,
    beside_adapters: int | None = None,
) -> Needs:
    """Estimate what a cold start takes.

    Args:
        config: the configuration.
        hf_config: the model's Hugging Face config.
        counts: its parameters by component.
        rule: its resize rule.
        longest: tokens of the longest row.
        image_tokens: image tokens of a row, on average.
        beside_adapters: see `Training`.
    """
    data, engine, per_node = config.data, config.engine, config.trainer.n_gpus_per_node
    workers = config.trainer.nnodes * per_node
    share = data.train_batch_size * engine.ulysses_sequence_parallel_size // workers
    tokens = data.max_token_len_per_gpu if data.use_dynamic_bsz else data.micro_batch_size_per_gpu * longest
    training = Training(
        workers=workers,
        lora_rank=config.model.lora_rank,
        frozen=frozenset(),
        state_bytes=value_bytes(engine.model_dtype),
        value_bytes=value_bytes(engine.dtype),
        tokens=tokens,
        image_tokens=min(tokens, int(tokens * image_tokens / longest)),
        checkpointing=config.model.enable_gradient_checkpointing,
        beside_adapters=beside_adapters,
    )
    shapes = Shapes.of(hf_config)
    state = training.state(shapes, counts)
    parked = {"weights": engine.param_offload, "optimiser": engine.optimizer_offload}
    batches = max(1, data.num_workers * _AHEAD)
    host = {
        "offloaded state": per_node * sum(state[name] for name, is_parked in parked.items() if is_parked),
        "images in flight": per_node * batches * share * images_bytes(rule, round(image_tokens)),
        "processes": per_node * PROCESS,
    }
    update = state | training.one_pass(shapes, counts)
    if config.hardware.platform == "cpu":
        host |= {name: per_node * size for name, size in update.items()}
        update = {}
    return Needs(update, {}, {}, host, 0, _KNOBS)
