"""Rollouts of whole groups: a prompt is encoded once, sampled n times, scored and stored together.

verl's agent loop works rollout by rollout and calls the processor once or twice for each. `GroupAgentLoopWorker`
handles a prompt and its n rollouts at once; it serves the agent name `GROUP_AGENT` and leaves every other agent (tools,
several turns) to verl. Configured by `actor_rollout_ref.rollout.agent`:

    agent_loop_manager_class: vgr_rl.training.agent_loop.GroupAgentLoopManager
    default_agent_loop: evidence_group
"""

import asyncio
import hashlib
import logging
import random
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import ray
import torch
import transfer_queue as tq
from omegaconf import DictConfig
from PIL import Image
from tensordict import NonTensorStack, TensorDict
from verl.protocol import DataProto
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ, apply_greedy_sampling_params
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from vgr_rl.segment.auto import MODEL_TYPE
from vgr_rl.training import shared_features
from vgr_rl.training.prompts import EncodedPrompt, PromptEncoder, extend_position_ids
from vgr_rl.training.run_log import RunLog

logger = logging.getLogger(__name__)

GROUP_AGENT = "evidence_group"
# of a data row, what the trainer reads again: each further column is an object for each rollout, on every transfer
_STORED_COLUMNS = ("uid", "data_source", "reward_model")
_WorkerBase = AgentLoopWorkerTQ.__ray_metadata__.modified_class


class GroupAgentLoopWorker(_WorkerBase):
    """Encodes a prompt once and publishes its n rollouts in one go."""

    _sam2_side: int | None = None  # of the pictures that R-Sa2VA makes masks of

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._told = False
        self._slots = asyncio.Semaphore(self.config.prompts_in_flight)
        self._encoder = PromptEncoder(
            self.processor,
            prefill=self.config.model.prefill,
            max_prompt_tokens=self.rollout_config.prompt_length,
            chat_template_kwargs=self.config.data.get("apply_chat_template_kwargs"),
            processor_kwargs=self.config.data.get("mm_processor_kwargs"),
        )
        if self.model_config.hf_config.model_type == MODEL_TYPE:
            self._sam2_side = self.model_config.hf_config.sam2_config.prompt_encoder_config.image_size

    async def generate_sequences(self, batch: TensorDict) -> None:
        """Start the groups of a batch without waiting for them; results go to TransferQueue."""
        rows = [{name: _row(value, i) for name, value in batch.items()} for i in range(len(batch))]
        others = [i for i, row in enumerate(rows) if row.get("agent_name", self._default_agent) != GROUP_AGENT]
        if others:
            await super().generate_sequences(batch if len(others) == len(rows) else batch[others])
        validate = bool(batch["validate"]) if "validate" in batch else False
        groups = [row for i, row in enumerate(rows) if i not in set(others)]
        for row in groups:
            row.pop("validate", None)
            task = asyncio.create_task(self._run_group(row, validate))
            self.background_tasks.add(task)
            task.add_done_callback(self.background_tasks.discard)

    def connect(self, llm_client: Any, teacher_client: Any, reward_loop_worker_handles: Any) -> None:
        """Take what the constructor of a worker that was started ahead could not be given."""
        self.llm_client = llm_client
        self.teacher_client = teacher_client
        self.reward_loop_worker_handles = reward_loop_worker_handles

    @property
    def _default_agent(self) -> str:
        return self.rollout_config.agent.default_agent_loop

    async def _run_group(self, row: dict[str, Any], validate: bool) -> None:
        partition, status = "val" if validate else "train", "failure"
        await tq.async_kv_put(key=row["uid"], partition_id=partition, tag={"status": "running"})
        try:
            async with self._slots:
                await self._rollout_group(row, validate, partition)
            status = "finished"
        except Exception as error:  # verl's contract: a failed group is reported; the trainer decides what follows
            logger.exception("rollout group %s of %s failed", row["uid"], row.get("data_source"))
            self._tell(
                f"rollout group {row['uid']} of {row.get('data_source')} failed: {type(error).__name__}: {error}"
            )
        await tq.async_kv_put(key=row["uid"], partition_id=partition, tag={"status": status})

    def _tell(self, message: str) -> None:
        """Write the first failure to the run's events; nodes without the run directory only have their own logs."""
        if not self._told and Path(self.config.run_dir).is_dir():
            RunLog(self.config.run_dir).event(message, "error")
            self._told = True

    async def _rollout_group(self, row: dict[str, Any], validate: bool, partition: str) -> None:
        rollout = self.rollout_config
        n = int(row.pop("__rollout_n__", rollout.val_kwargs.n if validate else rollout.n))
        sampling = self._sampling(validate, bool(row.pop("__do_sample__", True)))
        if self.config.seed_rollouts and not validate:
            sampling["seed"] = group_seed(self.config.seed, row["uid"])
        images = await self._images(row["raw_prompt"])
        prompt = await asyncio.to_thread(self._encoder.encode, row["raw_prompt"], images)
        started = time.perf_counter()
        samples, version = await self.llm_client.generate_group(prompt, n, sampling, int(row.get("priority", 0)))
        if any(sample.aborted or not sample.token_ids for sample in samples):
            raise RuntimeError("the inference engine aborted a rollout")
        generated_s = time.perf_counter() - started
        scores = await self._score(row, prompt, samples)
        scored_s = time.perf_counter() - started - generated_s
        kept = {name: row[name] for name in _STORED_COLUMNS if name in row}
        if not self.reward_loop_worker_handles:  # the trainer has the rollouts scored later
            kept |= {"raw_prompt": _without_images(row["raw_prompt"]), "extra_info": row.get("extra_info")}
        fields, tags, keys = [], [], []
        for session, (sample, score) in enumerate(zip(samples, scores, strict=True)):
            timing = {"generate_sequences": generated_s, "compute_score": scored_s, "tool_calls": 0.0}
            fields.append(_fields(kept, session, prompt, sample, score, timing, version))
            tags.append(_tag(row, prompt, sample, version))
            keys.append(f"{row['uid']}_{session}_0")
        if prompt.features and (self._sam2_side or not validate):
            await shared_features.put(row["uid"], prompt.features)
        if images and self._sam2_side:
            await shared_features.put(row["uid"], await self._picture(images[0]), shared_features.PICTURES)
        await tq.async_kv_batch_put(
            keys=keys, fields=list_of_dict_to_tensordict(fields), tags=tags, partition_id=partition
        )

    def _sampling(self, validate: bool, do_sample: bool) -> dict[str, Any]:
        source = self.rollout_config.val_kwargs if validate else self.rollout_config
        sampling = {name: getattr(source, name) for name in ("temperature", "top_p", "top_k")}
        sampling["repetition_penalty"] = 1.0
        sampling["logprobs"] = 0 if self.rollout_config.calculate_log_probs else None
        if not do_sample:
            apply_greedy_sampling_params(sampling)
        return sampling

    async def _images(self, messages: list[dict[str, Any]]) -> list[Image.Image]:
        images, _, _ = await self.dataset_cls.process_multi_modal_info(
            messages, image_patch_size=0, config=self.config.data
        )
        return images or []

    async def _picture(self, image: Image.Image) -> dict[str, Any]:
        from vgr_rl.segment.predict import sam2_picture

        assert self._sam2_side is not None
        return {"picture": await asyncio.to_thread(sam2_picture, image, self._sam2_side), "size": image.size}

    async def _score(self, row: dict[str, Any], prompt: EncodedPrompt, samples: list[Any]) -> list[dict[str, Any]]:
        if not self.reward_loop_worker_handles:
            return [{} for _ in samples]
        worker = random.choice(self.reward_loop_worker_handles)
        return await worker.compute_score_batch.remote(_reward_input(row, prompt, samples))


class GroupAgentLoopManager(AgentLoopManagerTQ):
    """verl's manager with our workers, which may have been started before there was anything to connect them to."""

    _started_ahead: ClassVar[list[Any]] = []

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(GroupAgentLoopWorker)

    @classmethod
    def start_workers(cls, config: DictConfig) -> None:
        """Start the workers of the manager that `create` will return."""
        manager = cls(config, llm_client=None)
        asyncio.run(manager._init_agent_loop_workers())
        cls._started_ahead = manager.agent_loop_workers

    async def _init_agent_loop_workers(self) -> None:
        if not self._started_ahead:
            await super()._init_agent_loop_workers()
            return
        self.agent_loop_workers, type(self)._started_ahead = self._started_ahead, []
        clients = (self.llm_client, self.teacher_client, self.reward_loop_worker_handles)
        await asyncio.gather(*[worker.connect.remote(*clients) for worker in self.agent_loop_workers])


def group_seed(seed: int, uid: str) -> int:
    """Return the seed of a prompt's first rollout; those behind it take the next ones."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{uid}".encode(), digest_size=6).digest())


def _row(value: Any, index: int) -> Any:
    if isinstance(value, torch.Tensor):
        return value[index]
    return value[index].data if isinstance(value, NonTensorStack) else value.data


def _without_images(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    def strip(part: dict[str, Any]) -> dict[str, Any]:
        return {"type": "image"} if part["type"] == "image" else part

    return [
        {**message, "content": [strip(part) for part in message["content"]]}
        if isinstance(message["content"], list)
        else message
        for message in messages
    ]


def _reward_input(row: dict[str, Any], prompt: EncodedPrompt, samples: list[Any]) -> DataProto:
    n = len(samples)
    responses = [torch.tensor(sample.token_ids) for sample in samples]
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(ids) for ids in responses], batch_first=True)
    padded = torch.nn.utils.rnn.pad_sequence(responses, batch_first=True)
    prompts = torch.tensor(prompt.token_ids).expand(n, -1)
    batch = TensorDict(
        {
            "prompts": prompts,
            "responses": padded,
            "input_ids": torch.cat([prompts, padded], dim=1),
            "attention_mask": torch.cat([torch.ones_like(prompts), mask], dim=1),
        },
        batch_size=n,
    )
    columns: dict[str, Any] = {**row, "__num_turns__": 2}
    return DataProto(batch=batch, non_tensor_batch={name: _column(value, n) for name, value in columns.items()})


def _column(value: Any, n: int) -> np.ndarray:
    column = np.empty(n, dtype=object)
    column[:] = [value] * n
    return column


def _fields(
    row: dict[str, Any],
    session: int,
    prompt: EncodedPrompt,
    sample: Any,
    score: dict[str, Any],
    timing: dict[str, float],
    version: int | None,
) -> dict[str, Any]:
    prompts, responses = torch.tensor(prompt.token_ids), torch.tensor(sample.token_ids)
    mask = torch.ones_like(responses)
    fields = {
        **row,
        "session_id": session,
        "prompts": prompts,
        "responses": responses,
        "input_ids": torch.cat([prompts, responses]),
        "position_ids": extend_position_ids(prompt.position_ids, len(responses)),
        "response_mask": mask,
        "loss_mask": mask,
        "multi_modal_inputs": shared_features.reference(row["uid"]) if prompt.features else {},
        "num_turns": 2,
        "metrics": timing,
        "extra_fields": {
            "turn_scores": [],
            "tool_rewards": [],
            "global_steps": version,
            "min_global_steps": version,
            "max_global_steps": version,
        },
    }
    if sample.log_probs is not None:
        fields["rollout_log_probs"] = torch.tensor(sample.log_probs, dtype=torch.float32)
    if score:
        fields["rm_scores"] = torch.zeros(len(responses), dtype=torch.float32)
        fields["rm_scores"][-1] = score["reward_score"]
        fields["extra_fields"]["reward_extra_info"] = score.get("reward_extra_info", {})
    return fields


def _tag(row: dict[str, Any], prompt: EncodedPrompt, sample: Any, version: int | None) -> dict[str, Any]:
    lengths = {"prompt_len": len(prompt.token_ids), "response_len": len(sample.token_ids)}
    return {
        "status": "success",
        **lengths,
        "seq_len": sum(lengths.values()),
        "global_steps": row["global_steps"],
        "min_global_steps": version,
        "max_global_steps": version,
    }
