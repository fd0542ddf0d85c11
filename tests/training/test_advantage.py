import numpy as np
import pytest
import torch
from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage, get_adv_estimator_fn

from vgr_rl.training.advantage import NAME, group_relative_advantage


def token_rewards(scores: list[float], length: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    rewards = torch.zeros(len(scores), length)
    rewards[:, -1] = torch.tensor(scores)
    return rewards, torch.ones(len(scores), length)


def test_it_is_registered_with_verl() -> None:
    assert get_adv_estimator_fn(NAME) is group_relative_advantage


@pytest.mark.parametrize("by_std", [True, False])
def test_without_failures_it_equals_verls_grpo(by_std: bool) -> None:
    generator = np.random.default_rng(0)
    rewards, mask = token_rewards(generator.normal(size=24).tolist())
    mask[::3, -1] = 0
    index = generator.integers(0, 5, size=24).astype(str).astype(object)
    ours, _ = group_relative_advantage(rewards.clone(), mask, index, norm_adv_by_std_in_grpo=by_std)
    theirs, _ = compute_grpo_outcome_advantage(rewards.clone(), mask, index, norm_adv_by_std_in_grpo=by_std)
    torch.testing.assert_close(ours, theirs)


def test_a_failed_reward_gets_zero_and_its_group_is_normalised_over_the_rest() -> None:
    rewards, mask = token_rewards([0.0, 1.0, float("nan"), 2.0])
    with_failure, _ = group_relative_advantage(rewards, mask, np.array(["a"] * 4, dtype=object))
    without, _ = group_relative_advantage(rewards[[0, 1, 3]], mask[:3], np.array(["a"] * 3, dtype=object))
    assert with_failure[2].tolist() == [0.0, 0.0, 0.0]
    torch.testing.assert_close(with_failure[[0, 1, 3]], without)


def test_the_only_survivor_of_a_group_learns_nothing() -> None:
    rewards, mask = token_rewards([float("nan"), 3.0])
    advantages, _ = group_relative_advantage(rewards, mask, np.array(["a", "a"], dtype=object))
    assert not advantages.any()
