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
