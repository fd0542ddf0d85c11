"""Loads an FSDP checkpoint into another number of workers: each rank takes its own slices from the files of all.

Weights and Adam's moments are copied, never computed, so they are the same bit for bit. The scheduler is the same on
every rank. The state of torch's random numbers belongs to a rank: a rank that was not there keeps its own.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from verl.utils.checkpoint.fsdp_checkpoint_manager import FSDPCheckpointManager

from vgr_rl.training.shards import local_part, sharded_dim


class ReshardingCheckpointManager(FSDPCheckpointManager):
    """verl's, for any number of workers."""

    def load_checkpoint(
        self, local_path: str, hdfs_path: str | None = None, del_local_after_load: bool = False
    ) -> None:
        """Load a checkpoint of as many workers as there are, or of another number."""
        saved = saved_workers(Path(local_path))
        if saved == self.world_size:
            super().load_checkpoint(local_path, hdfs_path, del_local_after_load)
            return
        folder = Path(local_path)
        self.model.load_state_dict(model_state(_all(folder, "model", saved), self.model.state_dict()))
        if self.should_load_optimizer:
            parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
            self.optimizer.load_state_dict(optimizer_state(_all(folder, "optim", saved), parameters))
        if self.should_load_extra:
            extra = _read(folder, "extra_state", saved, min(self.rank, saved - 1))
            if self.rank < saved:
                self.load_rng_state(extra["rng"])
            if extra["lr_scheduler"] is not None and self.lr_scheduler is not None:
                self.lr_scheduler.load_state_dict(extra["lr_scheduler"])
        torch.distributed.barrier()


def saved_workers(checkpoint: Path) -> int:
    """Return how many workers wrote a checkpoint."""
    return int(json.loads((checkpoint / "fsdp_config.json").read_text())["world_size"])


def model_state(shards: Sequence[dict[str, Tensor]], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of this rank.

    Args:
        shards: state dictionaries of all ranks that saved.
        own: state dictionary of this rank, for how its tensors are split.
    """
    return {name: own_part([shard[name] for shard in shards], tensor) for name, tensor in own.items()}


def optimizer_state(shards: Sequence[dict[str, Any]], parameters: Sequence[Tensor]) -> dict[str, Any]:
    """Return the optimiser's state of this rank.

    Args:
        shards: its state dictionaries of all ranks that saved.
        parameters: of this rank, in the optimiser's order; their moments are split as they are.
    """
    state = {}
    for number, values in shards[0]["state"].items():
        parameter = parameters[number]
        state[number] = {
            name: own_part([shard["state"][number][name] for shard in shards], parameter)
            if isinstance(value, Tensor) and value.shape == parameter.shape
            else value
            for name, value in values.items()
        }
    return {**shards[0], "state": state}


def own_part(parts: Sequence[Tensor], like: Tensor) -> Tensor:
    """Return a tensor split as `like` is, from what the ranks that saved it hold of it.

    Args:
        parts: of all ranks, in order; the slices of the first replica cover it (HSDP).
        like: a tensor of this rank.
    """
    shape, offset = tuple(like.shape), (0,) * like.ndim
    if isinstance(like, DTensor):
        shape, offset = compute_local_shape_and_global_offset(like.shape, like.device_mesh, like.placements)
    found = local_part(parts[0]).new_empty(shape)
    dim, start, covered = sharded_dim(parts[0]), 0, 0
    for part in map(local_part, parts):
        begins = [start if axis == dim else 0 for axis in range(part.ndim)]
        low = [max(a, b) for a, b in zip(begins, offset, strict=True)]
        high = [min(a + n, b + m) for a, n, b, m in zip(begins, part.shape, offset, shape, strict=True)]
        if all(a < b for a, b in zip(low, high, strict=True)):
            target = tuple(slice(a - o, b - o) for a, b, o in zip(low, high, offset, strict=True))
            found[target] = part[tuple(slice(a - o, b - o) for a, b, o in zip(low, high, begins, strict=True))]
            covered += found[target].numel()
        if dim is None or (start := start + part.shape[dim]) >= like.shape[dim]:
            break
    assert covered == found.numel(), f"the files hold {covered} of {found.numel()} values of a slice"
    if not isinstance(like, DTensor):
        return found
    found = found.to(like.device)
    return DTensor.from_local(
        found, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
    )


def _all(folder: Path, kind: str, workers: int) -> list[Any]:
    return [_read(folder, kind, workers, rank) for rank in range(workers)]


def _read(folder: Path, kind: str, workers: int, rank: int) -> Any:
    """Map a file; only the slices that are copied are read."""
    file = folder / f"{kind}_world_size_{workers}_rank_{rank}.pt"
    return torch.load(file, map_location="cpu", weights_only=False, mmap=True)
