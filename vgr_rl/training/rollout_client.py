"""The agent loop's side of `rollout_server`; imports no vLLM, which costs seconds in every process."""

import random
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig
from verl.workers.rollout.llm_server import LLMServerClient, LLMServerManager

from vgr_rl.training.prompts import EncodedPrompt


@dataclass(frozen=True, slots=True)
class Completion:
    """One rollout: R token ids, R log-probs of the sampling distribution (or None), and whether it was aborted."""

    token_ids: list[int]
    log_probs: list[float] | None
    aborted: bool


class GroupClient(LLMServerClient):
    """verl's client, plus one request for a whole group; all rollouts of a group go to one replica.

    It balances its own requests (fewest groups in flight) and needs no balancer actor, which would cost ten seconds of
    CPU time and half a GiB.
    """

    def __init__(self, config: DictConfig, servers: Sequence[Any]):
        """Take the actor handles of the first server of each replica."""
        super().__init__(config)
        self._servers = list(servers)
        self._in_flight = [0] * len(self._servers)
        self._offset = random.randrange(len(self._servers))  # or every agent-loop worker would prefer the first replica

    async def generate_group(
        self, prompt: EncodedPrompt, n: int, sampling: Mapping[str, Any], priority: int = 0
    ) -> tuple[list[Completion], int | None]:
        """Sample n completions of one prompt; see `GroupServer.generate_group`."""
        count = len(self._servers)
        order = [(self._offset + i) % count for i in range(count)]
        index = min(order, key=self._in_flight.__getitem__)
        self._in_flight[index] += 1
        try:
            return await self._servers[index].generate_group.remote(
                token_ids=prompt.token_ids,
                features=prompt.features,
                image_ids=prompt.image_ids,
                n=n,
                sampling=sampling,
                priority=priority,
            )
        finally:
            self._in_flight[index] -= 1

    async def _acquire_server(self, request_id: str, **_: Any) -> tuple[str, Any]:
        # verl's agents: every turn of a conversation goes where its prefix is cached
        index = zlib.crc32(request_id.encode()) % len(self._servers)
        return str(index), self._servers[index]

    def _release_server(self, server_id: str, request_id: str | None = None) -> None:
        return None


class GroupServerManager(LLMServerManager):
    """verl's manager without the balancer actor."""

    async def _init_global_load_balancer(self) -> None:
        self.global_load_balancer = None

    def get_client(self, client_cls: Any = None, **_: Any) -> GroupClient:
        """Return a client of all replicas."""
        return GroupClient(self.config, self.server_handles)
