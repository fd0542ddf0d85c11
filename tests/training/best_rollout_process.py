"""An update of the policy R-Sa2VA with the loss of best rollouts: `python best_rollout_process.py MODEL OUT`.

One of WORLD_SIZE processes, of which RANK 0 writes OUT, for `test_best_rollout.py`. All advantages are 0, so that every
gradient is that of the masks. Of two processes the first has all best rollouts.
"""

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict

sys.path.insert(0, str(Path(__file__).parent))  # verl installs a package called `tests`
from segment_policy_process import config_of, engine_of, rollouts
from segment_rollouts import BEST

ROWS = {1: ([0, 1, 2, 3],), 2: ([0, 2], [1, 3])}
"""Which rollouts each process has."""


def batch(processor: Any, patch: pytest.MonkeyPatch, rows: list[int]) -> TensorDict:
    from verl.utils import tensordict_utils

    from vgr_rl.training.best_rollout import FIELD, BestMasks

    data = rollouts(processor, patch)
    tensordict_utils.assign_non_tensor_stack(data, FIELD, [BestMasks(segs=segs, truth=truth) for segs, truth in BEST])
    nested = partial(torch.nested.as_nested_tensor, layout=torch.jagged)
    responses = data["responses"].unbind()
    data["prompts"] = nested(
        [ids[: len(ids) - len(own)] for ids, own in zip(data["input_ids"].unbind(), responses, strict=True)]
    )
    for name in ("old_log_probs", "advantages"):
        data[name] = nested([torch.zeros(len(own)) for own in responses])
    for name in ("response_mask", "loss_mask"):
        data[name] = nested([torch.ones_like(own) for own in responses])
    return tensordict_utils.index_select_tensor_dict(data, rows)


def update(engine: Any, data: TensorDict, loss: Any, tokens: int) -> dict[str, Any]:
    """Return the loss, its metrics and the gradients, with micro-batches of so many tokens."""
    from verl.utils import tensordict_utils

    settings = {"use_remove_padding": engine.use_remove_padding, "use_dynamic_bsz": True, "temperature": 1.0}
    tensordict_utils.assign_non_tensor(data, **settings, max_token_len_per_gpu=tokens, global_batch_size=4)
    with engine.train_mode():
        engine.optimizer_zero_grad()
        found = engine.forward_backward_batch(data, loss)
        named = [(name, own.grad) for name, own in engine.module.named_parameters() if own.grad is not None]
        gradients = {name.removeprefix("base_model.model."): grad.full_tensor().clone() for name, grad in named}
    metrics = {name: float(value.aggregate()) for name, value in found["metrics"].items() if "best_rollout" in name}
    return {"loss": sum(found["loss"]), "metrics": metrics, "gradients": gradients, "micro_batches": len(found["loss"])}


def main(model: str, out: str) -> None:
    import vgr_rl.plugin  # noqa: F401  as verl loads it

    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store = torch.distributed.FileStore(f"{out}.store", ranks)
    torch.distributed.init_process_group("cpu:gloo", store=store, rank=rank, world_size=ranks)
    from verl.utils.config import omega_conf_to_dataclass
    from verl.workers.utils.losses import ppo_loss

    from vgr_rl.training.best_rollout import BestRolloutLoss

    config = config_of(model, "masks.best_rollout_weight=0.5")
    torch.manual_seed(0)  # of the adapters
    engine = engine_of(config)
    loss = BestRolloutLoss(partial(ppo_loss, config=omega_conf_to_dataclass(config.actor_rollout_ref.actor)), 0.5)
    with pytest.MonkeyPatch.context() as patch:
        data = batch(engine.model_config.get_processor(), patch, ROWS[ranks][rank])
        found = {name: update(engine, data.copy(), loss, tokens) for name, tokens in (("whole", 1024), ("parts", 80))}
    if rank == 0:
        torch.save(found, Path(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
