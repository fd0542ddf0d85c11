import copy
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from vgr_rl.tiny.model import build_model
from vgr_rl.training.shards import assemble, read_shards

RANKS = 2  # processes, which form groups of two and of one


def learner(world_size: int) -> tuple[Any, Any, Any]:
    """Return a tiny model that is split as verl splits it, with Adam and a schedule."""
    from verl.utils.fsdp_utils import get_shard_placement_fn

    from vgr_rl.training.reshard import ReshardingCheckpointManager

    torch.manual_seed(0)
    model = build_model("qwen2_5_vl")
    mesh = init_device_mesh("cpu", (world_size,))
    for layer in model.model.language_model.layers:
        fully_shard(layer, mesh=mesh, shard_placement_fn=get_shard_placement_fn(world_size))
    fully_shard(model, mesh=mesh, shard_placement_fn=get_shard_placement_fn(world_size))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, total_iters=10)
    contents = {"save_contents": ["model", "optimizer", "extra"], "load_contents": ["model", "optimizer", "extra"]}
    manager = ReshardingCheckpointManager(model, optimizer, scheduler, checkpoint_config=contents)
    return model, manager, scheduler


def step(model: Any, manager: Any, scheduler: Any, number: int) -> None:
    generator = torch.Generator().manual_seed(number)
    for parameter in manager.optimizer.param_groups[0]["params"]:
        whole = torch.randn(parameter.shape, generator=generator)
        parameter.grad = torch.distributed.tensor.distribute_tensor(
            whole, parameter.device_mesh, parameter.placements, src_data_rank=None
        )
    manager.optimizer.step()
    scheduler.step()


def everything(model: Any, manager: Any, scheduler: Any) -> dict[str, Any]:
    """Return weights, moments, steps and the schedule, whole."""

    def full(value: Any) -> Any:
        return value.full_tensor() if isinstance(value, DTensor) else value

    weights = {name: full(tensor) for name, tensor in model.state_dict().items()}
    state = manager.optimizer.state_dict()
    moments = {n: {key: full(value) for key, value in own.items()} for n, own in state["state"].items()}
    kept = weights, moments, state["param_groups"], scheduler.state_dict()
    return copy.deepcopy(dict(zip(("weights", "moments", "groups", "schedule"), kept, strict=True)))


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return bool(a == b)


def with_group(rank: int, folder: Path, world_size: int, name: str, work: Any) -> None:
    """Run `work` in a process group of the first `world_size` ranks."""
    if rank < world_size:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{folder}/{name}", rank=rank, world_size=world_size
        )
        work()
        torch.distributed.destroy_process_group()


def one_process(rank: int, folder: Path) -> None:
    """Two ranks train and save, one goes on and saves, two go on again; each compares what it loads with what was."""

    def go_on(world_size: int, before: Path | None, after: Path) -> None:
        parts = learner(world_size)
        if before is not None:
            parts[1].load_checkpoint(str(before))
            assert same(everything(*parts), torch.load(before / "everything.pt", weights_only=False))
        for number in range(2):
            step(*parts, number)
        parts[1].save_checkpoint(str(after), global_step=1)
        kept = everything(*parts)
        if rank == 0:
            torch.save(kept, after / "everything.pt")
        torch.distributed.barrier()

    names: list[Path | None] = [None, folder / "two", folder / "one", folder / "two_again"]
    for place, world_size in enumerate((2, 1, 2)):
        before, after = names[place], names[place + 1]
        with_group(rank, folder, world_size, f"group{place}", lambda: go_on(world_size, before, after))  # noqa: B023
        while not (after / "everything.pt").exists():  # type: ignore[operator]
            time.sleep(0.1)


@pytest.mark.slow
def test_another_number_of_ranks_goes_on_bit_for_bit(tmp_path: Path) -> None:
    ranks = [subprocess.Popen([sys.executable, __file__, str(rank), str(tmp_path)]) for rank in range(RANKS)]
    assert [rank.wait(timeout=180) for rank in ranks] == [0] * RANKS
    saved = torch.load(tmp_path / "one/everything.pt", weights_only=False)
    assert same(assemble(tmp_path / "one", read_shards(tmp_path / "one")), saved["weights"])
    assert saved["schedule"]["last_epoch"] == 4


if __name__ == "__main__":
    one_process(int(sys.argv[1]), Path(sys.argv[2]))
