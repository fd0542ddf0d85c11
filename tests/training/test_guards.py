import pytest

from vgr_rl.training.guards import CORRELATION, Guards, GuardTripped


def guards(window: int = 2) -> Guards:
    return Guards(
        min_logprob_correlation=0.95,
        min_correlation_tokens=100,
        max_flat_group_rate=0.9,
        max_reward_failure_rate=0.2,
        window=window,
    )


@pytest.mark.parametrize("correlation", [0.94, 0.4, float("nan")])
def test_rollouts_with_other_weights_stop_the_run(correlation: float) -> None:
    with pytest.raises(GuardTripped, match="guards.min_logprob_correlation=0.95"):
        guards().check({CORRELATION: correlation}, response_tokens=1000)


def test_correlation_of_a_handful_of_tokens_is_not_judged() -> None:
    assert guards().check({CORRELATION: 0.1}, response_tokens=99) == []
    assert guards().check({CORRELATION: 0.99}, response_tokens=1000) == []


def test_flat_groups_and_dead_parts_warn_once_they_persist() -> None:
    sick = {"group/zero_variance_rate": 1.0, "reward/dual_iou/zero_rate": 1.0, "reward/accuracy/zero_rate": 0.5}
    checks = guards()
    assert checks.check(sick, 1000) == []
    flat, dead = checks.check(sick, 1000)
    assert "group/zero_variance_rate=1.00" in flat
    assert "dual_iou" in dead and "model.frame" in dead


def test_failing_rewards_stop_the_run_once_they_persist() -> None:
    checks = guards()
    checks.check({"reward/failure_rate": 0.5}, 1000)
    with pytest.raises(GuardTripped, match="guards.max_reward_failure_rate=0.2"):
        checks.check({"reward/failure_rate": 0.5}, 1000)


def test_a_healthy_run_is_left_alone() -> None:
    checks = guards()
    healthy = {CORRELATION: 0.9999, "reward/failure_rate": 0.0, "group/zero_variance_rate": 0.3}
    assert [checks.check(healthy, 1000) for _ in range(5)] == [[]] * 5
