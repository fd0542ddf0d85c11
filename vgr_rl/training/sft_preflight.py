"""Everything about a cold start that can be known before training processes start."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from vgr_rl.data.schema import SftRow
from vgr_rl.errors import ConfigError
from vgr_rl.segment.auto import MODEL_TYPE
from vgr_rl.training import memory_plan, segment_preflight, sft_memory
from vgr_rl.training.chat_encoding import ChatEncoder, Encoded
from vgr_rl.training.checkpoint_files import check_processes, check_resume, check_weights, resume_point, start_from
from vgr_rl.training.checkpoint_manifest import step_of
from vgr_rl.training.cluster import Cluster
from vgr_rl.training.data_on_demand import make_missing
from vgr_rl.training.memory import count_parameters
from vgr_rl.training.memory_plan import Needs
from vgr_rl.training.model_spec import ModelSpec
from vgr_rl.training.sft_files import to_parquet
from vgr_rl.training.sft_rows import SftTable, check_masks, check_row

logger = logging.getLogger("vgr_rl.sft")


@dataclass(frozen=True, slots=True)
class Split:
    """What one split of the data holds.

    Attributes:
        rows: of it.
        longest: tokens of the longest row, images included.
        mean: tokens of a row.
        image_tokens: of a row, on average.
        with_prefill: rows whose response starts with data.prefill.
        masks: of `[SEG]` to be learnt.
    """

    rows: int
    longest: int
    mean: float
    image_tokens: float
    with_prefill: int
    masks: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked cold start.

    Attributes:
        config: the configuration with the data files that training reads.
        spec: facts about the starting checkpoint.
        train: the training split.
        val: the validation split, None without one.
        processes: training processes on all nodes.
        total_steps: optimiser steps of the whole run.
        resume_step: steps already done by an earlier run in run_dir.
        export_dtype: number type of the exported weights.
        needs: what it takes of memory.
        lacks: what this machine, or the simulated cluster, has too little of.
        warning: of what will not be learnt, if there is any such thing.
    """

    config: DictConfig
    spec: ModelSpec
    train: Split
    val: Split | None
    processes: int
    total_steps: int
    resume_step: int
    export_dtype: str
    needs: Needs
    lacks: tuple[str, ...]
    warning: str | None

    def lines(self) -> list[str]:
        """Return the plan as lines for a person."""
        config, train = self.config, self.train
        trained = f"LoRA of rank {config.model.lora_rank}" if config.model.lora_rank else "all weights"
        if self.spec.model_type == MODEL_TYPE:
            own = trained if config.model.lora_rank else "the language model's weights"
            own += ", embeddings" if config.model.lora_rank and config.masks.train_embeddings else ""
            trained = f"{own}, projector and mask decoder"
        start = f"from step {self.resume_step}" if self.resume_step else "from the start"
        lines = [
            f"model    {self.spec.path}: {self.spec.architecture}; {trained} train",
            f"data     {train.rows} rows, {train.mean:.0f} tokens on average, longest {train.longest} of "
            f"data.max_length={config.data.max_length}",
            f"steps    {self.total_steps} of {config.data.train_batch_size} rows, {start}; "
            f"{config.optim.optimizer} lr {config.optim.lr:g}, {config.optim.lr_scheduler_type}, "
            f"warm-up {config.optim.lr_warmup_steps_ratio:g}",
            f"hardware {config.hardware.name}: {self.processes} training process{'es' if self.processes > 1 else ''}",
            f"run_dir  {config.run_dir}",
        ]
        if self.spec.model_type == MODEL_TYPE:
            masks = config.masks
            lines.insert(
                2,
                f"masks    {train.masks} of [SEG]; loss {masks.bce_weight:g} BCE + {masks.dice_weight:g} Dice on "
                f"{masks.points} points of {masks.per_image} masks an image",
            )
        if self.val is not None:
            lines.insert(2, f"         {self.val.rows} rows of validation, longest {self.val.longest}")
        if train.with_prefill < train.rows and config.data.prefill:
            lines.append(
                f"warning  {train.rows - train.with_prefill} of {train.rows} responses do not start with "
                f"data.prefill={config.data.prefill!r}, which the next stage puts before every response"
            )
        lines += [f"warning  {self.warning}"] if self.warning else []
        lines += [f"{heading:<8} {text}" for heading, text in self.needs.lines()]
        return lines + [f"but      {problem}" for problem in self.lacks]


def check(config: DictConfig, work_dir: Path) -> Plan:
    """Check configuration, machine, checkpoint and every row of the data.

    Args:
        config: the composed configuration.
        work_dir: folder for converted data files (ShareGPT json becomes parquet).

    Raises:
        ConfigError: naming what was given, what is needed and the knob.
    """
    processes = config.trainer.nnodes * config.trainer.n_gpus_per_node
    cluster = Cluster.of(config, on_ray=False)
    missing = _missing(config, cluster)
    if missing and not config.dry_run:
        raise ConfigError(missing[0])
    _check_batch(config, processes)
    make_missing(config.data.get("make"), _as_list(config.data.train_files) + _as_list(config.data.val_files))
    spec = ModelSpec.load(config.model.path)
    weights_dtype = check_weights(config.model.path, spec)
    config = _for_model(_with_parquet_files(config, work_dir, spec), spec)
    encoder = _encoder(config)
    train = _check_split(config, "train", spec, encoder)
    val = _check_split(config, "val", spec, encoder) if config.data.val_files else None
    total_steps = _total_steps(config, train.rows, processes)
    checkpoint = resume_point(config.trainer)
    if checkpoint is not None:
        check_resume(checkpoint, spec, total_steps)
        check_processes(checkpoint, processes)
    if config.export_dtype not in ("auto", "float32", "bfloat16"):
        raise ConfigError(f"export_dtype={config.export_dtype} but expected auto, float32 or bfloat16")
    export_dtype = weights_dtype if config.export_dtype == "auto" else config.export_dtype
    needs = _needs(config, spec, train)
    lacks = (*missing, *memory_plan.check(needs, cluster))
    is_segmenter = spec.model_type == MODEL_TYPE
    warning = segment_preflight.frozen_seg(config, encoder.processor.tokenizer) if is_segmenter else None
    start_from(config.trainer, checkpoint)
    step = step_of(checkpoint)
    return Plan(config, spec, train, val, processes, total_steps, step, export_dtype, needs, lacks, warning)


def _missing(config: DictConfig, cluster: Cluster) -> list[str]:
    trainer = config.trainer
    if cluster.nodes is not None:
        return cluster.too_small(config)
    problems, found = [], cluster.gpus_per_node
    if config.hardware.platform == "cuda" and found < trainer.n_gpus_per_node:
        problems.append(
            f"hardware={config.hardware.name} needs {trainer.n_gpus_per_node} GPUs on this machine "
            f"(trainer.n_gpus_per_node) but torch sees {found}; choose hardware=cpu or lower that number"
        )
    if trainer.nnodes > 1 and not config.launch.rendezvous:
        problems.append(f"trainer.nnodes={trainer.nnodes} but launch.rendezvous=null; set it to host:port of node 0")
    return problems


def _needs(config: DictConfig, spec: ModelSpec, train: Split) -> Needs:
    from transformers import AutoConfig

    hf_config = AutoConfig.from_pretrained(Path(config.model.path).expanduser())
    counts = count_parameters(hf_config)
    own = segment_preflight.trained_beside_adapters(hf_config, config) if spec.model_type == MODEL_TYPE else None
    return sft_memory.estimate(config, hf_config, counts, spec.resize_rule, train.longest, train.image_tokens, own)


def _check_batch(config: DictConfig, processes: int) -> None:
    data = config.data
    sequence_parallel = config.engine.ulysses_sequence_parallel_size
    replicas, rest = divmod(processes, sequence_parallel)
    if rest:
        raise ConfigError(
            f"{processes} processes cannot be split by engine.ulysses_sequence_parallel_size={sequence_parallel}"
        )
    if data.train_batch_size % replicas:
        raise ConfigError(f"data.train_batch_size={data.train_batch_size} is not a multiple of {replicas} processes")
    share = data.train_batch_size // replicas
    if not data.use_dynamic_bsz and share % min(share, data.micro_batch_size_per_gpu):
        raise ConfigError(
            f"each process gets {share} rows a step (data.train_batch_size={data.train_batch_size} over {replicas}) "
            f"but data.micro_batch_size_per_gpu={data.micro_batch_size_per_gpu} does not divide them"
        )
    if data.use_dynamic_bsz and data.max_token_len_per_gpu * sequence_parallel < data.max_length:
        raise ConfigError(
            f"data.max_token_len_per_gpu={data.max_token_len_per_gpu} times {sequence_parallel} is less than "
            f"data.max_length={data.max_length}: a longest row would fit in no micro-batch"
        )


def _with_parquet_files(config: DictConfig, work_dir: Path, spec: ModelSpec) -> DictConfig:
    config = OmegaConf.create(config)  # type: ignore[assignment]
    with open_dict(config):
        for split in ("train", "val"):
            files = _as_list(config.data[f"{split}_files"])
            for file in files:
                if not Path(file).expanduser().is_file():
                    raise ConfigError(f"data.{split}_files: {file} does not exist")
            folder = work_dir / split
            parquet = [to_parquet(Path(file).expanduser(), folder, spec, config.data.json_boxes) for file in files]
            config.data[f"{split}_files"] = parquet or None
        if not config.data.use_dynamic_bsz:
            share = config.data.train_batch_size // (config.trainer.nnodes * config.trainer.n_gpus_per_node)
            config.data.micro_batch_size_per_gpu = min(share, config.data.micro_batch_size_per_gpu)
    return config


def _for_model(config: DictConfig, spec: ModelSpec) -> DictConfig:
    """Choose engine and data set by what the checkpoint is."""
    if spec.model_type == MODEL_TYPE:
        segment_preflight.check_adapters(config.model)
        with open_dict(config):
            config.model.external_lib = "vgr_rl.training.segment_engine"
            config.data.custom_cls = {
                "path": "pkg://vgr_rl.training.segment_dataset",
                "name": "MaskedColdStartDataset",
            }
    return config


def _check_split(config: DictConfig, split: str, spec: ModelSpec, encoder: ChatEncoder) -> Split:
    table = SftTable(config.data[f"{split}_files"], config.data.get(f"{split}_max_samples", -1))
    if len(table) < config.data.train_batch_size:
        raise ConfigError(
            f"data.{split}_files hold {len(table)} rows but a batch takes data.train_batch_size="
            f"{config.data.train_batch_size}; lower it" + (" or set data.val_files=null" if split == "val" else "")
        )
    lengths, with_prefill, image_tokens, masks = [], 0, 0, 0
    for index in range(len(table)):
        row = table[index]
        name = f"{table.name(index)} (id {row.id})" if row.id else table.name(index)
        encoded, of_images = _encoded(row, name, spec, encoder, config.data.max_length)
        lengths.append(len(encoded.input_ids))
        image_tokens += of_images
        if spec.model_type == MODEL_TYPE:
            masks += check_masks(row, name, encoded.count(spec.hf_config["seg_token_id"]))
        with_prefill += row.messages[-1]["content"].startswith(encoder.prefill)
    if spec.model_type == MODEL_TYPE and not masks:
        raise ConfigError(f"data.{split}_files have no [SEG] with a mask, which {spec.architecture} learns from")
    rows = len(lengths)
    return Split(rows, max(lengths), sum(lengths) / rows, image_tokens / rows, with_prefill, masks)


def _encoded(row: SftRow, name: str, spec: ModelSpec, encoder: ChatEncoder, max_length: int) -> tuple[Encoded, int]:
    sizes = check_row(row, name)
    try:
        image_tokens = [spec.resize_rule.image_tokens(size) for size in sizes]
        encoded = encoder.encode(row.messages, image_tokens)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from error
    if (length := len(encoded.input_ids)) > max_length:
        raise ConfigError(
            f"data.max_length={max_length} but {name} needs {length} tokens, {sum(image_tokens)} of them for its "
            f"{len(sizes)} images; raise it, or lower max_pixels of the image processor in model.path"
        )
    return encoded, sum(image_tokens)


def _encoder(config: DictConfig) -> ChatEncoder:
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(Path(config.model.path).expanduser())
    return ChatEncoder(processor, config.data.prefill or "", config.data.loss_on_prefill)


def _total_steps(config: DictConfig, rows: int, processes: int) -> int:
    replicas = processes // config.engine.ulysses_sequence_parallel_size
    an_epoch = (rows // replicas) // (config.data.train_batch_size // replicas)
    available = an_epoch * config.trainer.total_epochs
    wanted = config.trainer.total_training_steps
    if wanted is not None and wanted > available:
        raise ConfigError(
            f"trainer.total_training_steps={wanted} but {config.trainer.total_epochs} epochs of {an_epoch} steps end "
            f"after {available}; raise trainer.total_epochs"
        )
    return available if wanted is None else wanted


def _as_list(value: Any) -> list[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)
