"""Checks that need neither Ray nor a GPU: each problem names what was given, what is needed and the knob."""

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vgr_rl.data.images import image_sizes
from vgr_rl.data.schema import IMAGE_TAG, Row
from vgr_rl.monitoring import pictures
from vgr_rl.training.memory import COMPONENTS
from vgr_rl.training.model_spec import ModelSpec
from vgr_rl.training.segmenter_preflight import segmenter_gpus

SUPPORTED_ARCHITECTURES = (
    "Qwen2VLForConditionalGeneration",
    "Qwen2_5_VLForConditionalGeneration",
    "Qwen3VLForConditionalGeneration",
    "Qwen3VLMoeForConditionalGeneration",
    "RSa2VA",
)
NUMBERS: dict[str, type | tuple[type, ...]] = {
    "prompts_in_flight": int,
    "trainer.total_training_steps": int,
    "trainer.total_epochs": int,
    "trainer.save_freq": int,
    "trainer.nnodes": int,
    "trainer.n_gpus_per_node": int,
    "data.train_batch_size": int,
    "data.max_prompt_length": int,
    "data.max_response_length": int,
    "actor_rollout_ref.rollout.n": int,
    "actor_rollout_ref.rollout.temperature": (int, float),
    "actor_rollout_ref.actor.ppo_mini_batch_size": int,
    "actor_rollout_ref.actor.optim.lr": (int, float),
    "masks.best_rollout_weight": (int, float),
}
MICRO_BATCHES = (
    ("actor", "ppo_micro_batch_size_per_gpu"),
    ("ref", "log_prob_micro_batch_size_per_gpu"),
    ("rollout", "log_prob_micro_batch_size_per_gpu"),
)
_ROWS_A_BATCH = 1024


@dataclass(frozen=True, slots=True)
class TokenBudget:
    """Prompt lengths of a data file, in tokens after the processor's image tokens and the prefill.

    Attributes:
        longest: longest prompt.
        longest_id: sample that has it.
        too_long: (sample id, tokens, image tokens) of samples over the budget.
        refused: (sample id, reason) of samples with an image that the processor does not take.
        samples: how many were measured.
        sources: the data sources that they name.
    """

    longest: int
    longest_id: str
    too_long: tuple[tuple[str, int, int], ...]
    refused: tuple[tuple[str, str], ...]
    samples: int
    sources: frozenset[str]


def check_architecture(spec: ModelSpec) -> list[str]:
    """Return a problem when the checkpoint is not of a supported family."""
    if spec.architecture in SUPPORTED_ARCHITECTURES:
        return []
    return [
        f"model.path={spec.path} holds a {spec.architecture} (model_type {spec.model_type}) but one of "
        f"{', '.join(SUPPORTED_ARCHITECTURES)} is needed"
    ]


def check_values(config: DictConfig) -> list[str]:
    """Return what has the wrong type or names something that does not exist, before it is used in arithmetic."""
    problems = []
    for key, kind in NUMBERS.items():
        value = OmegaConf.select(config, key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, kind)):
            problems.append(f"{key}={value} but a number is expected")
    if not isinstance(config.seed_rollouts, bool):
        problems.append(f"seed_rollouts={config.seed_rollouts} but true or false is expected")
    prompts = config.data.get("gen_batch_size") or config.data.train_batch_size
    if config.seed_rollouts and prompts != config.data.train_batch_size:
        problems.append(
            f"seed_rollouts=true but data.gen_batch_size={prompts} draws prompts in no fixed order; leave one out"
        )
    if not problems and config.prompts_in_flight < 1:
        problems.append(f"prompts_in_flight={config.prompts_in_flight} but at least 1 is expected")
    weight = config.masks.best_rollout_weight
    if not problems and (weight is None or not 0 <= weight < math.inf):
        problems.append(f"masks.best_rollout_weight={weight} but 0 or more is expected")
    unknown = sorted(set(config.model.freeze) - set(COMPONENTS))
    if unknown or set(config.model.freeze) == set(COMPONENTS):
        problems.append(
            f"model.freeze={list(config.model.freeze)} but expected some, not all, of {', '.join(COMPONENTS)}"
        )
    return problems + pictures.problems(config)


def check_batch(config: DictConfig, train_samples: int) -> list[str]:
    """Return what does not add up in batch sizes, groups and workers."""
    problems = []
    batch, group = config.data.train_batch_size, config.actor_rollout_ref.rollout.n
    mini = config.actor_rollout_ref.actor.ppo_mini_batch_size
    workers = config.trainer.nnodes * config.trainer.n_gpus_per_node
    tensor_parallel = config.actor_rollout_ref.rollout.tensor_model_parallel_size
    if train_samples < batch:
        problems.append(f"data.train_batch_size={batch} but data.train_files hold {train_samples} samples")
    if group < 2 and "grpo" in config.algorithm.adv_estimator:
        problems.append(f"actor_rollout_ref.rollout.n={group} but GRPO compares rollouts of a group: at least 2")
    if mini > batch or batch % mini:
        problems.append(
            f"actor_rollout_ref.actor.ppo_mini_batch_size={mini} (prompts) must divide data.train_batch_size={batch}"
        )
    if mini * group % workers:
        problems.append(
            f"actor_rollout_ref.actor.ppo_mini_batch_size x rollout.n = {mini} x {group} = {mini * group} sequences "
            f"cannot be split over trainer.nnodes x trainer.n_gpus_per_node = {workers} workers"
        )
    per_worker = mini * group // workers
    for owner, key in MICRO_BATCHES:
        micro = config.actor_rollout_ref[owner][key]
        if micro and not config.actor_rollout_ref.actor.use_dynamic_bsz and per_worker % micro:
            problems.append(
                f"actor_rollout_ref.{owner}.{key}={micro} must divide the {per_worker} sequences of a worker in an "
                "update (ppo_mini_batch_size x rollout.n / workers)"
            )
    if workers % tensor_parallel:
        problems.append(
            f"actor_rollout_ref.rollout.tensor_model_parallel_size={tensor_parallel} must divide the {workers} workers"
        )
    max_model_len = config.actor_rollout_ref.rollout.max_model_len
    needed = config.data.max_prompt_length + config.data.max_response_length
    if max_model_len is not None and max_model_len < needed:
        problems.append(
            f"actor_rollout_ref.rollout.max_model_len={max_model_len} but data.max_prompt_length + "
            f"data.max_response_length = {needed}"
        )
    actor = config.actor_rollout_ref.actor
    if actor.use_dynamic_bsz and actor.ppo_max_token_len_per_gpu * actor.ulysses_sequence_parallel_size < needed:
        problems.append(
            f"actor_rollout_ref.actor.ppo_max_token_len_per_gpu={actor.ppo_max_token_len_per_gpu} but "
            f"data.max_prompt_length + data.max_response_length = {needed}: the longest sequence would fit in no "
            "micro-batch"
        )
    return problems


def check_accelerators(config: DictConfig) -> list[str]:
    """Return a problem when this machine lacks the GPUs; an existing cluster (RAY_ADDRESS) is asked at start."""
    if config.hardware.platform != "cuda" or os.environ.get("RAY_ADDRESS"):
        return []
    import torch

    found, needed = torch.cuda.device_count(), config.trainer.n_gpus_per_node + segmenter_gpus(config)
    problems = []
    if found < needed:
        problems.append(
            f"hardware={config.hardware.name} needs {needed} CUDA GPUs on this machine but torch sees {found}; choose "
            "hardware=cpu, or set RAY_ADDRESS to a cluster that has them"
        )
    pools = config.trainer.nnodes + config.reward.reward_model.nnodes * config.reward.reward_model.enable_resource_pool
    if not problems and pools > 1:
        problems.append(
            f"hardware={config.hardware.name} spans {pools} nodes: start a Ray cluster on them and set RAY_ADDRESS"
        )
    return problems


def measure_prompts(
    rows: Iterable[Row], folder: Path, tokenizer: Any, spec: ModelSpec, prefill: str, max_prompt_length: int
) -> TokenBudget:
    """Measure every prompt with the tokenizer and the resize rule, without decoding an image.

    Args:
        rows: samples with `image_size` of the (first) stored image, in pixels.
        folder: what relative paths of further images start from.
        tokenizer: Hugging Face tokenizer with the chat template.
        spec: the checkpoint, for its resize rule.
        prefill: literal text behind the generation prompt.
        max_prompt_length: the budget, tokens.
    """
    longest, longest_id, samples, sources = 0, "", 0, set[str]()
    too_long: list[tuple[str, int, int]] = []
    refused: list[tuple[str, str]] = []
    for batch in _batched(rows, _ROWS_A_BATCH):
        texts = [_chat_text(row, tokenizer) + prefill for row in batch]
        lengths = [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
        for row, length in zip(batch, lengths, strict=True):
            try:
                image_tokens = sum(spec.resize_rule.image_tokens(size) for size in image_sizes(row, folder))
            except ValueError as error:
                refused.append((row.sample.id, str(error)))
                continue
            total = length - len(row.images) + image_tokens
            samples += 1
            sources.add(row.sample.data_source)
            if total > longest:
                longest, longest_id = total, row.sample.id
            if total > max_prompt_length:
                too_long.append((row.sample.id, total, image_tokens))
    return TokenBudget(longest, longest_id, tuple(too_long), tuple(refused), samples, frozenset(sources))


def check_budget(budget: TokenBudget, max_prompt_length: int, file: str) -> list[str]:
    """Return one problem a sample that is longer than the prompt budget, or has an image that cannot be used."""
    return [f"{file}: sample {name}: {reason}" for name, reason in budget.refused] + [
        f"{file}: data.max_prompt_length={max_prompt_length} but sample {name} needs {tokens} tokens "
        f"({image_tokens} of them for its image); raise it or lower model.max_pixels"
        for name, tokens, image_tokens in budget.too_long
    ]


def _chat_text(row: Row, tokenizer: Any) -> str:
    messages = []
    for message in row.prompt:
        pieces = message["content"].split(IMAGE_TAG)
        content: list[dict[str, str]] = []
        for number, piece in enumerate(pieces):
            content += [{"type": "image"}] if number else []
            content += [{"type": "text", "text": piece}] if piece else []
        messages.append({"role": message["role"], "content": content})
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def _batched(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
