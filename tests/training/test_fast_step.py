import time

import pytest
from verl.trainer.ppo.v1 import replay_buffer

from vgr_rl.training.fast_step import RestingReplayBuffer


@pytest.mark.parametrize(("listing_s", "expected_s"), [(0.0, (0.05, 0.06)), (0.03, (0.3, 1.0))])
def test_polls_take_a_small_share_of_the_drivers_time(
    monkeypatch: pytest.MonkeyPatch, listing_s: float, expected_s: tuple[float, float]
):
    monkeypatch.setattr(replay_buffer.tq, "kv_list", lambda: time.sleep(listing_s) or {})  # TransferQueue needs Ray
    buffer = RestingReplayBuffer("sync", {}, None, "drop", {})
    buffer._sync_metadata_from_transfer_queue()
    assert expected_s[0] <= buffer.poll_interval <= expected_s[1]


def test_a_batch_has_its_rollouts_in_the_same_order_whichever_was_finished_first(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(replay_buffer.tq, "kv_clear", lambda **given: None)
    buffer = RestingReplayBuffer("sync", {}, None, "drop", {})
    names = [f"step1-prompt{prompt}_{rollout}_0" for prompt in range(3) for rollout in range(2)]
    for finished in (names, names[::-1]):
        batch = buffer._materialize_batch(
            "train", ["step1-prompt2", "step1-prompt0"], {name: {"name": name} for name in finished}
        )
        assert batch.keys == [*names[:2], *names[4:]] and [tag["name"] for tag in batch.tags] == batch.keys
