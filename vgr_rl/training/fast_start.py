"""Starts the actors of a run side by side: a mixin, `class Trainer(FastStartMixin, FastStepMixin, PPOTrainerSync)`.

Nearly all of the time to the first step is Python imports, and verl starts one process after the other: policy workers,
reward workers, vLLM servers, agent-loop workers. None of them needs another one to be there while it imports.

The inference engine is started ahead only where it shares no memory with the policy (the CPU): on a GPU it measures
free memory while it starts, so the policy must be in place.
"""

import importlib
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import ray
from omegaconf import DictConfig
from verl.experimental.reward_loop import RewardLoopManager
from verl.trainer.distillation import is_distillation_enabled
from verl.trainer.ppo.v1 import trainer_base

from vgr_rl.judge.pool import PoolRewards
from vgr_rl.training.agent_loop import GroupAgentLoopManager
from vgr_rl.training.mask_rewards import rewards_of
from vgr_rl.training.rollout_client import GroupServerManager
from vgr_rl.verl_patches import replaced_names

logger = logging.getLogger(__name__)

_LOGGER_MODULES = {"wandb": "wandb", "tensorboard": "torch.utils.tensorboard"}


class FastStartMixin:
    """Overrides `_setup`; put it before the trainer among the bases."""

    def _setup(self) -> None:
        early = EarlyStart(self.config)
        with replaced_names(trainer_base, **early.factories()):
            super()._setup()
        early.check_used()


class EarlyStart:
    """Actors on their way, and factories that hand them to verl when it asks for them."""

    def __init__(self, config: DictConfig):
        """Start what the configuration allows to start ahead."""
        self._config = config
        self._open: set[str] = set()
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="start")
        self._servers: Future[GroupServerManager] | None = None
        self._rewards: RewardLoopManager | None = None
        # on one node, since weights reach the engine through shared memory
        if config.trainer.device == "cpu" and sum(node["Alive"] for node in ray.nodes()) == 1:
            self._open.add("servers")
            self._servers = self._threads.submit(self._start_servers)
        if not config.reward.reward_model.enable:
            self._open.add("rewards")
            self._rewards = rewards_of(config)(config=config, rm_resource_pool=None)
        if not is_distillation_enabled(config.get("distillation")):
            GroupAgentLoopManager.start_workers(config)
        threading.Thread(target=_import_loggers, args=(config.trainer.logger,), daemon=True).start()

    def factories(self) -> dict[str, Callable[..., Any] | SimpleNamespace]:
        """Return stand-ins for the classes that verl's `_setup` would create."""
        factories: dict[str, Any] = {"LLMServerManager": GroupServerManager, "RewardLoopManager": PoolRewards}
        if self._rewards is not None:
            factories["RewardLoopManager"] = self._take_rewards
        if self._servers is not None:
            factories["LLMServerManager"] = SimpleNamespace(create=self._take_servers)
        return factories

    def check_used(self) -> None:
        """Fail when verl no longer asks for something that was started."""
        assert not self._open, f"verl's setup did not use the early {sorted(self._open)}"
        self._threads.shutdown(wait=False)

    def _start_servers(self) -> GroupServerManager:
        # verl asks the policy workers for their node and device; here all are on this node and no device is addressed
        node = ray.get_runtime_context().get_node_id()
        workers = [_WorkerOnNode(node) for _ in range(self._config.trainer.n_gpus_per_node)]
        return GroupServerManager.create(
            config=self._config, worker_group=SimpleNamespace(workers=workers, world_size=len(workers))
        )

    def _take_rewards(self, config: DictConfig, rm_resource_pool: Any) -> RewardLoopManager:
        self._open.discard("rewards")
        assert self._rewards is not None
        return self._rewards

    def _take_servers(self, config: DictConfig, worker_group: Any, rollout_resource_pool: Any) -> GroupServerManager:
        self._open.discard("servers")
        assert self._servers is not None
        manager = self._servers.result()
        manager.worker_group = worker_group
        for replica in manager.get_replicas():
            first = replica.world_size * replica.replica_rank
            replica.workers = worker_group.workers[first : first + replica.world_size]
        return manager


class _WorkerOnNode:
    """Answers the one question that `vLLMReplica.launch_servers` asks a policy worker."""

    def __init__(self, node: str):
        self.__ray_call__ = SimpleNamespace(remote=self._answer)
        self._node = node

    async def _answer(self, question: Callable[[Any], Any]) -> tuple[str, str]:
        return self._node, "0"


def _import_loggers(names: Any) -> None:
    for name in [names] if isinstance(names, str) else names:
        if name in _LOGGER_MODULES:
            importlib.import_module(_LOGGER_MODULES[name])
