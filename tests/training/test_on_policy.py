import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from tensordict import TensorDict
from verl.utils import tensordict_utils
from verl.workers.config import FSDPActorConfig
from verl.workers.utils.losses import ppo_loss
from verl.workers.utils.padding import no_padding_2_padding

from vgr_rl.training.on_policy import comparison_metrics, needs_no_old_log_probs, on_policy_loss

PROMPTS, RESPONSES = [3, 3, 5], [4, 2, 6]


def nested(rows):
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


def batch():
    generator = torch.Generator().manual_seed(0)
    total = sum(PROMPTS) + sum(RESPONSES)
    log_probs = (-torch.rand(total, generator=generator) * 3).requires_grad_()
    rollout = [-torch.rand(length, generator=generator) * 3 for length in RESPONSES]
    data = TensorDict(
        {
            "prompts": nested([torch.ones(n, dtype=torch.long) for n in PROMPTS]),
            "responses": nested([torch.ones(n, dtype=torch.long) for n in RESPONSES]),
            "response_mask": nested([torch.ones(n, dtype=torch.long) for n in RESPONSES]),
            "advantages": nested([torch.full((n,), a) for n, a in zip(RESPONSES, (1.0, -0.5, 0.2), strict=True)]),
            "rollout_log_probs": nested(rollout),
        },
        batch_size=3,
    )
    tensordict_utils.assign_non_tensor(data, dp_size=1, batch_num_tokens=sum(RESPONSES), global_batch_size=3)
    lengths = torch.tensor([0, *[p + r for p, r in zip(PROMPTS, RESPONSES, strict=True)]]).cumsum(0)
    return {"log_probs": torch.nested.nested_tensor_from_jagged(log_probs, lengths)}, data, log_probs, rollout


def actor_config():
    return FSDPActorConfig(strategy="fsdp2", rollout_n=1, ppo_mini_batch_size=3, ppo_micro_batch_size_per_gpu=3)


def test_loss_and_gradient_equal_verls_with_the_updates_log_probs_as_old_ones():
    output, data, log_probs, _ = batch()
    loss, _ = on_policy_loss(actor_config(), output, data)
    (gradient,) = torch.autograd.grad(loss, log_probs)

    output, data, log_probs, _ = batch()
    padded = no_padding_2_padding(output["log_probs"], data).detach()
    data["old_log_probs"] = nested([row[:n] for row, n in zip(padded, RESPONSES, strict=True)])
    expected, _ = ppo_loss(actor_config(), output, data)
    (expected_gradient,) = torch.autograd.grad(expected, log_probs)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, expected_gradient)
    assert gradient.abs().sum() > 0


def test_comparison_equals_numpy_on_the_sampled_tokens():
    output, data, _, rollout = batch()
    _, metrics = on_policy_loss(actor_config(), output, data)
    flat = {f"actor/{name}": value.aggregate() for name, value in metrics.items() if "sums" in name}
    result = comparison_metrics(flat)
    padded = no_padding_2_padding(output["log_probs"], data).detach()
    actor = np.exp(torch.cat([row[:n] for row, n in zip(padded, RESPONSES, strict=True)]).double().numpy())
    sampled = np.exp(torch.cat(rollout).double().numpy())
    assert not flat
    assert result["training/rollout_actor_probs_pearson_corr"] == pytest.approx(np.corrcoef(actor, sampled)[0, 1])
    assert result["training/rollout_probs_diff_mean"] == pytest.approx(np.abs(actor - sampled).mean())
    assert result["actor/entropy"] == pytest.approx(-np.log(actor).mean())


def test_sums_of_micro_batches_add_up():
    output, data, _, _ = batch()
    _, metrics = on_policy_loss(actor_config(), output, data)
    values = {name: value.aggregate() for name, value in metrics.items() if "sums" in name}
    once = comparison_metrics({f"actor/{name}": value for name, value in values.items()})
    twice = comparison_metrics({f"actor/{name}": 2 * value for name, value in values.items()})
    assert once == pytest.approx(twice)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"actor_rollout_ref.actor.ppo_epochs": 2}, False),
        ({"actor_rollout_ref.actor.ppo_mini_batch_size": 4}, False),
        ({"actor_rollout_ref.rollout.calculate_log_probs": False}, False),
        ({"algorithm.use_kl_in_reward": True}, False),
        ({"algorithm.rollout_correction.rollout_is": "token"}, False),
    ],
)
def test_which_updates_are_on_policy(change, expected):
    config = OmegaConf.create(
        {
            "data": {"train_batch_size": 8},
            "actor_rollout_ref": {
                "actor": {"ppo_epochs": 1, "ppo_mini_batch_size": 8},
                "rollout": {"calculate_log_probs": True},
            },
            "algorithm": {"use_kl_in_reward": False, "rollout_correction": {"rollout_is": None}},
        }
    )
    for key, value in change.items():
        OmegaConf.update(config, key, value)
    assert needs_no_old_log_probs(config) is expected
