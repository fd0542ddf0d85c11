"""GRPO advantages that leave failed rewards out: estimator `grpo_evidence`, registered with verl."""

from typing import Any

import numpy as np
import torch
from verl.trainer.ppo.core_algos import register_adv_est

NAME = "grpo_evidence"


@register_adv_est(NAME)
def group_relative_advantage(
    token_level_rewards: torch.Tensor,
    response_mask: torch.Tensor,
    index: np.ndarray,
    epsilon: float = 1e-6,
    norm_adv_by_std_in_grpo: bool = True,
    config: Any = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalise each rollout's reward over the rollouts of its group whose reward did not fail.

    Equal to verl's `grpo` when no reward failed (a group of one keeps its reward as its advantage, as there).
    A rollout whose reward is NaN, and one that is alone after failures, gets zero advantage.

    Args:
        token_level_rewards: `[batch, response]`, NaN somewhere in a row whose reward failed.
        response_mask: `[batch, response]`, 1 on response tokens.
        index: `[batch]`, the group of each row.
        epsilon: added to the standard deviation.
        norm_adv_by_std_in_grpo: divide by the standard deviation (GRPO) or not (Dr. GRPO).
        config: verl's algorithm config; its `norm_adv_by_std_in_grpo` wins over the argument.

    Returns:
        Advantages and returns, both `[batch, response]`.

    Source: arXiv 2402.03300, section 4.1.2.
    """
    if config is not None:
        norm_adv_by_std_in_grpo = bool(config.get("norm_adv_by_std_in_grpo", norm_adv_by_std_in_grpo))
    scores = token_level_rewards.sum(dim=-1)
    advantages = torch.zeros_like(scores)
    group_of_row = np.unique(np.asarray(index, dtype=str), return_inverse=True)[1]
    by_group = torch.as_tensor(np.argsort(group_of_row, kind="stable"))
    usable = ~torch.isnan(scores)
    for members in by_group.split(np.bincount(group_of_row).tolist()):
        rows = members[usable[members]]
        if len(rows) == 0:
            continue
        if len(rows) == 1:
            alone = len(members) == 1
            advantages[rows] = scores[rows] if alone else 0.0
            continue
        centred = scores[rows] - scores[rows].mean()
        advantages[rows] = centred / (scores[rows].std() + epsilon) if norm_adv_by_std_in_grpo else centred
    token_advantages = advantages.unsqueeze(-1) * response_mask
    return token_advantages, token_advantages
