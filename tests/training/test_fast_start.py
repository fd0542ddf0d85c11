from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from vgr_rl.judge.pool import PoolRewards
from vgr_rl.training import fast_start
from vgr_rl.training.fast_start import EarlyStart
from vgr_rl.training.rollout_client import GroupServerManager


@pytest.fixture
def started(monkeypatch):
    """What would have been started on a Ray cluster with one node."""
    started = []
    manager = lambda **_: started.append("rewards") or "reward manager"  # noqa: E731
    monkeypatch.setattr(fast_start, "rewards_of", lambda config: manager)
    monkeypatch.setattr(fast_start.GroupAgentLoopManager, "start_workers", lambda config: started.append("agents"))
    monkeypatch.setattr(fast_start.ray, "nodes", lambda: [{"Alive": True}])
    replicas = [SimpleNamespace(world_size=1, replica_rank=rank, workers=[]) for rank in range(2)]
    servers = SimpleNamespace(get_replicas=lambda: replicas, replicas=replicas)
    monkeypatch.setattr(EarlyStart, "_start_servers", lambda self: started.append("servers") or servers)
    return started


def config(device="cpu", judge=False):
    return OmegaConf.create(
        {
            "trainer": {"device": device, "logger": []},
            "reward": {"reward_model": {"enable": judge}},
            "distillation": None,
        }
    )


def test_verl_gets_what_was_started_ahead(started):
    early = EarlyStart(config())
    factories = early.factories()
    group = SimpleNamespace(workers=["worker 0", "worker 1"])
    servers = factories["LLMServerManager"].create(config=None, worker_group=group, rollout_resource_pool=None)
    assert factories["RewardLoopManager"](config=None, rm_resource_pool=None) == "reward manager"
    assert [replica.workers for replica in servers.replicas] == [["worker 0"], ["worker 1"]]
    assert sorted(started) == ["agents", "rewards", "servers"]
    early.check_used()


def test_on_a_gpu_the_engine_waits_for_the_policy(started):
    factories = EarlyStart(config(device="cuda")).factories()
    assert "servers" not in started
    assert factories["LLMServerManager"] is GroupServerManager


def test_a_judge_is_started_by_verl_in_its_own_pool(started):
    assert EarlyStart(config(judge=True)).factories()["RewardLoopManager"] is PoolRewards
    assert "rewards" not in started


def test_something_started_and_not_used_is_an_error(started):
    with pytest.raises(AssertionError, match=r"did not use the early \['rewards', 'servers'\]"):
        EarlyStart(config()).check_used()
