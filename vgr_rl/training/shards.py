"""The model weights of an FSDP checkpoint: read, assembled, adapters folded in, and compared with a saved model."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from verl.model_merger.base_model_merger import ModelMergerConfig
from verl.model_merger.fsdp_model_merger import FSDPModelMerger

from vgr_rl.training.checkpoint_manifest import steps

Shard = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class LoraScale:
    """What an adapter was trained with: its rank and alpha."""

    rank: int
    alpha: int


class _ExactMerger(FSDPModelMerger):
    """verl's assembly of shards without its cast of every tensor to bfloat16."""

    def assemble(self, shards: list[Shard]) -> Shard:
        return {key: self._assemble_one(key, [shard[key] for shard in shards]) for key in shards[0]}

    def _assemble_one(self, key: str, parts: list[Tensor]) -> Tensor:
        if not isinstance(parts[0], DTensor):
            from verl.model_merger.fsdp_model_merger import merge_non_dtensor_shards

            return merge_non_dtensor_shards(key, parts)
        return self._merge_by_placement([local_part(part) for part in parts], parts[0].placements[-1])


def shard_files(checkpoint: Path) -> list[Path]:
    """Return the files of all ranks, in order.

    Raises:
        ValueError: the folder is no FSDP checkpoint or a rank's file is missing.
    """
    config_file = checkpoint / "fsdp_config.json"
    if not config_file.is_file():
        wrong = "is no checkpoint" if checkpoint.is_dir() else "does not exist"
        raise ValueError(f"{checkpoint} {wrong}: {_known(checkpoint)}")
    world_size = json.loads(config_file.read_text())["world_size"]
    files = [checkpoint / f"model_world_size_{world_size}_rank_{rank}.pt" for rank in range(world_size)]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise ValueError(f"{checkpoint} lacks {', '.join(missing)}: the checkpoint is incomplete")
    return files


def _known(checkpoint: Path) -> str:
    """Return which checkpoints are near a folder that is none."""
    folder = checkpoint.parent if checkpoint.name == "actor" else checkpoint
    for place in (folder, folder / "checkpoints", folder.parent):
        if found := steps(place):
            return f"{place} has {', '.join(step.name for step in found)}"
    return "expected a folder checkpoints/global_step_N of a run"


def read_shards(checkpoint: Path) -> list[Shard]:
    """Return the state dictionaries of all ranks, in order; with replicas (HSDP) those of the first replica.

    Raises:
        ValueError: as `shard_files`.
    """
    files = shard_files(checkpoint)
    first = _load(files[0])
    sharded = [tensor for tensor in first.values() if isinstance(tensor, DTensor)]
    count = sharded[0].device_mesh.mesh.shape[-1] if sharded else 1
    return [first, *(_load(file) for file in files[1:count])]


def assemble(checkpoint: Path, shards: list[Shard]) -> Shard:
    """Return whole tensors, in the number type they were trained in."""
    config = ModelMergerConfig(
        operation="merge",
        backend="fsdp",
        local_dir=str(checkpoint),
        hf_model_config_path=str(checkpoint / "huggingface"),
    )
    return _ExactMerger(config).assemble(shards)


def lora_scale(checkpoint: Path) -> LoraScale | None:
    """Return rank and alpha of the adapter a checkpoint was trained with, None without one."""
    file = checkpoint / "lora_train_meta.json"
    if not file.is_file():
        return None
    meta = json.loads(file.read_text())
    return LoraScale(rank=meta["r"], alpha=meta["lora_alpha"])


def fold_adapter(state: Shard, scale: LoraScale) -> Shard:
    """Return the weights of the plain model: W + alpha / rank * B A for every adapted W (LoRA, arXiv 2106.09685)."""
    folded: Shard = {}
    for key, tensor in state.items():
        name = key.removeprefix("base_model.model.")
        if ".lora_" in name:
            continue
        if ".base_layer." in name:
            stem = key.split(".base_layer.")[0]
            name = name.replace(".base_layer.", ".")
            if name.endswith(".weight"):
                a, b = state[f"{stem}.lora_A.default.weight"], state[f"{stem}.lora_B.default.weight"]
                tensor = tensor + (scale.alpha / scale.rank) * (b @ a)
        folded[name] = tensor
    return folded


def differing_tensors(state: Shard, shards: list[Shard], dtype: torch.dtype) -> list[str]:
    """Compare a saved model's tensors with the shards, slice by slice; return one line for each that differs.

    Each shard must equal its own slice of the saved tensor after the same rounding to `dtype`, and the slices must
    cover the tensor. Not for shards with an adapter, whose weights are folded.
    """
    problems = [f"{key} was not saved" for key in shards[0].keys() - state.keys()]
    problems += [f"{key} is in no shard" for key in state.keys() - shards[0].keys()]
    for key in sorted(shards[0].keys() & state.keys()):
        saved, covered = state[key], 0
        for rank, shard in enumerate(shards):
            part, piece, dim = local_part(shard[key]), saved, sharded_dim(shard[key])
            if dim is not None:
                piece = saved.narrow(dim, covered, max(0, min(part.shape[dim], saved.shape[dim] - covered)))
                covered += part.shape[dim]
                if rank == len(shards) - 1 and covered != saved.shape[dim]:
                    problems.append(f"{key}: shards cover {covered} of {saved.shape[dim]} rows of dimension {dim}")
            if part.shape != piece.shape:
                problems.append(f"{key}: shape {tuple(piece.shape)} against {tuple(part.shape)} on rank {rank}")
            elif not torch.equal(part.to(dtype), piece.to(dtype)):
                gap = (part.to(dtype) - piece.to(dtype)).abs().max().item()
                problems.append(f"{key}: differs from rank {rank} by up to {gap:.3g}")
    return problems


def local_part(tensor: Tensor) -> Tensor:
    """Return what one rank holds of a tensor."""
    return tensor._local_tensor if isinstance(tensor, DTensor) else tensor


def sharded_dim(tensor: Tensor) -> int | None:
    """Return the dimension along which a tensor is split over ranks, None when every rank holds all of it."""
    placement: Any = tensor.placements[-1] if isinstance(tensor, DTensor) else None
    return placement.dim if placement is not None and placement.is_shard() else None


def _load(file: Path) -> Any:
    return torch.load(file, map_location="cpu", weights_only=False)
