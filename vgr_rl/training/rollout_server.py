"""vLLM rollout server with one request for a whole group.

verl sends every rollout on its own: n requests that carry and process the same images. Here a group is one request with
the image features that the agent loop has already computed, so an image is processed once in a step, and the tokens
come back once, at the end, instead of one output object for every token of every rollout.
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
import torch
from verl.utils.device import get_device_name
from verl.workers.rollout.vllm_rollout import vllm_async_server
from vllm import SamplingParams
from vllm.inputs.engine import mm_input
from vllm.lora.request import LoRARequest
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.inputs import MultiModalKwargsItems, PlaceholderRange
from vllm.sampling_params import RequestOutputKind

from vgr_rl.training.rollout_client import Completion
from vgr_rl.training.rollout_model import served_part
from vgr_rl.training.vision_tokens import banned_token_ids


class GroupServer(vllm_async_server.vLLMHttpServer):
    """verl's server, plus `generate_group`; it also bans the vision boundaries, not only the placeholders."""

    def _init_model_config(self, model_config: Any) -> Any:
        session = Path(ray._private.worker._global_node.get_session_dir_path())  # goes with the cluster
        folder = session / f"served_{os.getpid()}"
        return served_part(super()._init_model_config(model_config), self.config.load_format, folder)

    async def run_server(self, args: Any) -> None:
        """Start the engine with our list of banned tokens (verl asks this function for it and has no hook)."""
        vllm_async_server.get_vision_placeholder_token_ids = banned_token_ids
        await super().run_server(args)

    @cached_property
    def _mm_processor(self) -> Any:
        return MULTIMODAL_REGISTRY.create_processor(self.engine.model_config)

    async def generate_group(
        self,
        *,
        token_ids: list[int],
        features: Mapping[str, torch.Tensor],
        image_ids: Sequence[str],
        n: int,
        sampling: Mapping[str, Any],
        priority: int = 0,
    ) -> tuple[list[Completion], int | None]:
        """Sample n completions of one prompt.

        Args:
            token_ids: L prompt tokens with expanded placeholders.
            features: Vision inputs from the processor; empty for a text prompt.
            image_ids: One cache key for each image.
            n: Number of completions.
            sampling: Keyword arguments of vLLM's SamplingParams, with `logprobs` as a bool; with a `seed`, completion i
                is drawn from seed + i.
            priority: vLLM's scheduling priority.

        Returns:
            The completions and the version (global step) of the weights.
        """
        seed = sampling.get("seed")
        seeds = [None if seed is None else seed + i for i in range(n)]
        params = [self._sampling_params(len(token_ids), {**sampling, "seed": each}) for each in seeds]
        lora = await self._lora_request()
        inputs = [self._engine_input(token_ids, features, image_ids) for _ in range(n)]
        samples = await asyncio.gather(
            *[self._generate_one(*each, lora, priority) for each in zip(inputs, params, strict=True)]
        )
        return list(samples), self.global_steps

    def _sampling_params(self, prompt_length: int, sampling: Mapping[str, Any]) -> SamplingParams:
        room = self.config.max_model_len - prompt_length
        if room < 1:
            raise ValueError(
                f"actor_rollout_ref.rollout.max_model_len={self.config.max_model_len} leaves no room behind a prompt "
                f"of {prompt_length} tokens; raise it to data.max_prompt_length + data.max_response_length"
            )
        options = {"ignore_eos": self.config.ignore_eos, "max_tokens": self.config.response_length, **sampling}
        return SamplingParams(
            **{**options, "max_tokens": min(options["max_tokens"], room)},
            output_kind=RequestOutputKind.FINAL_ONLY,
            detokenize=False,
        )

    async def _lora_request(self) -> LoRARequest | None:
        lora_id = vllm_async_server.VLLM_LORA_INT_ID
        if not self.lora_as_adapter or lora_id not in await self.engine.list_loras():
            return None
        return LoRARequest(
            lora_name=vllm_async_server.VLLM_LORA_NAME,
            lora_int_id=lora_id,
            lora_path=vllm_async_server.VLLM_LORA_PATH,
        )

    def _engine_input(
        self, token_ids: list[int], features: Mapping[str, torch.Tensor], image_ids: Sequence[str]
    ) -> Any:
        if not features:
            return {"prompt_token_ids": token_ids}
        dtype = self.engine.model_config.dtype
        inputs = {name: value.to(dtype) if value.is_floating_point() else value for name, value in features.items()}
        fields = self._mm_processor._get_mm_fields_config(inputs, {})
        items = {name: list(values) for name, values in MultiModalKwargsItems.from_hf_inputs(inputs, fields).items()}
        hashes = {"image": list(image_ids)}
        # the first request of a group takes the features to the engine process, its siblings find them there by key
        self.engine.input_processor.inject_into_mm_cache(hashes, items)
        placeholder = self.engine.model_config.hf_config.image_token_id
        return mm_input(token_ids, items, hashes, {"image": _runs(token_ids, placeholder)})

    async def _generate_one(
        self, engine_input: Any, params: SamplingParams, lora: LoRARequest | None, priority: int
    ) -> Completion:
        request_id = uuid4().hex
        if await self._park_until_admitted(request_id) is not None:
            return Completion([], None, aborted=True)
        final = None
        try:
            stream = self.engine.generate(
                prompt=engine_input,
                sampling_params=params,
                request_id=request_id,
                lora_request=lora,
                priority=priority,
            )
            async for output in stream:
                final = output
        finally:
            self._admitting -= 1
        if final is None or not final.outputs or final.outputs[0].finish_reason == "abort":
            return Completion([], None, aborted=True)
        sample = final.outputs[0]
        token_ids = list(sample.token_ids)
        log_probs = None
        if sample.logprobs is not None:
            log_probs = [at[token].logprob for token, at in zip(token_ids, sample.logprobs, strict=True)]
        return Completion(token_ids, log_probs, aborted=False)


def _runs(token_ids: Sequence[int], placeholder: int) -> list[PlaceholderRange]:
    runs: list[PlaceholderRange] = []
    start = None
    for position, token in enumerate([*token_ids, -1]):
        if token == placeholder and start is None:
            start = position
        elif token != placeholder and start is not None:
            runs.append(PlaceholderRange(offset=start, length=position - start))
            start = None
    return runs


class GroupReplica(vllm_async_server.vLLMReplica):
    """verl's replica that starts our servers; for a judge or a teacher it starts verl's."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if self.is_reward_model or self.is_teacher_model:
            return
        server = GroupServer
        if get_device_name() == "cpu":
            from vgr_rl.cpu.inproc_server import InprocServer as server
        self.server_class = ray.remote(server)
