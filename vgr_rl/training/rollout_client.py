"""The agent loop's side of `rollout_server`; imports no vLLM, which costs seconds in every process."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from verl.workers.rollout.llm_server import LLMServerClient

from vgr_rl.training.prompts import EncodedPrompt


@dataclass(frozen=True, slots=True)
class Completion:
    """One rollout: R token ids, R log-probs of the sampling distribution (or None), and whether it was aborted."""

    token_ids: list[int]
    log_probs: list[float] | None
    aborted: bool


class GroupClient(LLMServerClient):
    """verl's client, plus one request for a whole group; all rollouts of a group go to one replica."""

    async def generate_group(
        self, prompt: EncodedPrompt, n: int, sampling: Mapping[str, Any], priority: int = 0
    ) -> tuple[list[Completion], int | None]:
        """Sample n completions of one prompt; see `GroupServer.generate_group`."""
        request_id = uuid4().hex
        server_id, server = await self._acquire_server(request_id, prompt_ids=prompt.token_ids)
        try:
            return await server.generate_group.remote(
                token_ids=prompt.token_ids,
                features=prompt.features,
                image_ids=prompt.image_ids,
                n=n,
                sampling=sampling,
                priority=priority,
            )
        finally:
            self._release_server(server_id, request_id=request_id)
