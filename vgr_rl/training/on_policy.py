"""Policy updates that need no separate pass for the old log-probs.

When the whole batch is one mini-batch and is used once, the policy of the update is the policy that sampled: the old
log-probs are the update's own, without gradient, and the ratio is 1. verl computes them in an extra forward pass. The
comparison of rollout and actor, which that pass served too, is made from the update's forward pass instead.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from omegaconf import DictConfig
from tensordict import TensorDict
from verl.utils.metric import AggregationType, Metric
from verl.workers.config import ActorConfig
from verl.workers.utils.losses import ppo_loss
from verl.workers.utils.padding import no_padding_2_padding

_SUMS = "on_policy_sums/"


def needs_no_old_log_probs(config: DictConfig) -> bool:
    """Return whether old log-probs are the update's own: one mini-batch, one epoch, nothing else that reads them."""
    actor, correction = config.actor_rollout_ref.actor, config.algorithm.get("rollout_correction", None) or {}
    corrected = any(correction.get(name) for name in ("rollout_is", "rollout_rs", "bypass_mode"))
    return (
        actor.ppo_epochs == 1
        and actor.ppo_mini_batch_size == config.data.train_batch_size
        and config.actor_rollout_ref.rollout.calculate_log_probs
        and not config.algorithm.use_kl_in_reward
        and not corrected
    )


def on_policy_loss(
    config: ActorConfig, model_output: dict[str, Any], data: TensorDict, dp_group: Any = None
) -> tuple[torch.Tensor, dict[str, Any]]:
    """Return verl's policy loss with the update's own log-probs as the old ones, and the sums for the comparison."""
    log_prob = no_padding_2_padding(model_output["log_probs"], data).detach()
    data = data.copy()
    mask = data["response_mask"]
    rows = [row[: int(length)] for row, length in zip(log_prob, mask.offsets().diff(), strict=True)]
    data["old_log_probs"] = torch.nested.as_nested_tensor(rows, layout=torch.jagged)
    loss, metrics = ppo_loss(config, model_output, data, dp_group)
    sums = _sums(torch.cat(rows), data["rollout_log_probs"].values(), mask.values().bool())
    return loss, metrics | {f"{_SUMS}{name}": Metric(AggregationType.SUM, value) for name, value in sums.items()}


def _sums(actor: torch.Tensor, rollout: torch.Tensor, mask: torch.Tensor) -> dict[str, float]:
    a, r = actor[mask].double(), rollout[mask].double()
    x, y = a.exp(), r.exp()
    return {
        "n": float(len(x)),
        "x": x.sum().item(),
        "y": y.sum().item(),
        "xx": x.square().sum().item(),
        "yy": y.square().sum().item(),
        "xy": (x * y).sum().item(),
        "difference": (x - y).abs().sum().item(),
        "surprise": -a.sum().item(),
        "k1": (r - a).sum().item(),
    }


def comparison_metrics(metrics: dict[str, Any]) -> dict[str, float]:
    """Take the sums out of the update's metrics and return what they say about rollout and actor.

    Probabilities of the sampled tokens are compared, under verl's names. `actor/entropy` is the mean surprise of the
    sampled tokens, an unbiased estimate of the entropy of the sampling distribution.
    """
    sums = {name: metrics.pop(name) for name in list(metrics) if _SUMS in name}
    return _comparison({name.rsplit("/", 1)[-1]: float(value) for name, value in sums.items()})


def _comparison(s: Mapping[str, float]) -> dict[str, float]:
    if not s or not s["n"]:
        return {"training/rollout_probs_diff_valid": 0}
    n = s["n"]
    covariance = s["xy"] - s["x"] * s["y"] / n
    variances = (s["xx"] - s["x"] ** 2 / n) * (s["yy"] - s["y"] ** 2 / n)
    correlation = covariance / math.sqrt(variances) if variances > 0 else math.nan
    return {
        "training/rollout_probs_diff_valid": 1,
        "training/rollout_probs_diff_mean": s["difference"] / n,
        "training/rollout_actor_probs_pearson_corr": correlation,
        "training/rollout_actor_kl": s["k1"] / n,
        "actor/entropy": s["surprise"] / n,
    }
