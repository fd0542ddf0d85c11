"""vLLM inside the rollout server's own process, for machines without an accelerator.

vLLM's asynchronous engine starts a second process, which imports everything again (10 s and half a GiB on a laptop) and
receives every request by message. Here the synchronous engine runs in one thread of the server. There is no HTTP
endpoint: rollouts come through `generate_group`. A judge keeps verl's server, which has one.
"""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.lora.request import LoRARequest
from vllm.outputs import RequestOutput
from vllm.usage.usage_lib import UsageContext
from vllm.v1.engine.llm_engine import LLMEngine

from vgr_rl.training.rollout_server import GroupServer
from vgr_rl.training.vision_tokens import banned_token_ids

BLOCK_SIZE = 32
"""Tokens in a block of the KV cache: the smallest that vLLM's CPU kernels are written for."""

_Request = tuple[str, Any, SamplingParams, LoRARequest | None, int]


class InprocEngine:
    """The part of vLLM's `AsyncLLM` that verl's server uses, over an `LLMEngine` that lives in one thread."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="vllm")
        self._engine: LLMEngine
        self._incoming: deque[_Request] = deque()
        self._futures: dict[str, asyncio.Future[RequestOutput]] = {}
        self._loop_task: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, config: VllmConfig) -> "InprocEngine":
        """Load the model."""
        self = cls()
        self._engine = await self._call(
            partial(LLMEngine.from_vllm_config, config, UsageContext.LLM_CLASS, disable_log_stats=True)
        )
        return self

    @property
    def model_config(self) -> Any:
        """The engine's model configuration."""
        return self._engine.model_config

    @property
    def input_processor(self) -> Any:
        """The engine's input processor, which holds the cache of image features."""
        return self._engine.input_processor

    async def generate(
        self,
        *,
        prompt: Any,
        sampling_params: SamplingParams,
        request_id: str,
        lora_request: LoRARequest | None = None,
        priority: int = 0,
    ) -> AsyncIterator[RequestOutput]:
        """Yield the finished output of a request."""
        future: asyncio.Future[RequestOutput] = asyncio.get_running_loop().create_future()
        self._futures[request_id] = future
        self._incoming.append((request_id, prompt, sampling_params, lora_request, priority))
        if self._loop_task is None or self._loop_task.done():
            self._loop_task = asyncio.create_task(self._run())
        yield await future

    async def _run(self) -> None:
        try:
            while self._futures:
                for output in await self._call(self._advance):
                    if output.finished:
                        self._futures.pop(output.request_id).set_result(output)
        except Exception as error:  # whatever it is, those who wait must hear of it
            waiting, self._futures = self._futures, {}
            for future in waiting.values():
                future.set_exception(error)

    def _advance(self) -> list[RequestOutput]:
        while self._incoming:
            request_id, prompt, params, lora, priority = self._incoming.popleft()
            self._engine.add_request(request_id, prompt, params, lora_request=lora, priority=priority)
        return self._engine.step()

    async def _call(self, function: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    async def wait_for_requests_to_drain(self) -> None:
        """Wait until no request is unfinished."""
        while self._futures:
            await asyncio.gather(*self._futures.values(), return_exceptions=True)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Return an asynchronous version of a method of `LLMEngine` (reset_mm_cache, collective_rpc, sleep ...)."""
        if name.startswith("_"):
            raise AttributeError(name)
        method = getattr(self._engine, name)

        async def run(*args: Any, **kwargs: Any) -> Any:
            return await self._call(partial(method, *args, **kwargs))

        return run


class InprocServer(GroupServer):
    """`GroupServer` with the engine in its own process."""

    async def run_server(self, args: Any) -> None:
        """Start the engine and ban vision tokens, as verl's server does, without the HTTP endpoint."""
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        args.distributed_executor_backend = "uni"
        # the default on a CPU, 128, is longer than many prompts; only full blocks are shared by the rollouts of a group
        args.block_size = args.block_size or BLOCK_SIZE
        config = AsyncEngineArgs.from_cli_args(args).create_engine_config(UsageContext.LLM_CLASS)
        self.engine = await InprocEngine.start(config)
        await self.engine.collective_rpc(
            "monkey_patch_model",
            kwargs={
                "vocab_size": len(self.model_config.tokenizer),
                "banned_token_ids": banned_token_ids(self.model_config.processor),
            },
        )
        self._server_port = self._master_port  # names the server in the load balancer; nobody connects to it
