"""What `growth.py` puts in the place of the engines: rollouts that are made up, and a worker group that counts."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import ray
import torch
import transfer_queue as tq
from omegaconf import DictConfig
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from vgr_rl.data.schema import sample_from_json
from vgr_rl.training import agent_loop, shared_features
from vgr_rl.training.agent_loop import GroupAgentLoopManager
from vgr_rl.training.grading import to_json
from vgr_rl.training.prompts import EncodedPrompt
from vgr_rl.training.reward_manager import DETAIL, build_grader
from vgr_rl.training.rollout_client import Completion
from vgr_rl.training.trainer import EvidenceTrainer

MIB = 1 << 20
_AT_A_TIME = 32  # prompts


@dataclass(frozen=True, slots=True)
class Cost:
    """One step of the driver.

    Attributes:
        sequences: of the step.
        cpu_s: CPU time of the driver, all threads.
        wall_s: without waiting for rollouts.
        driver_mib: how much its resident memory grew by at its peak.
        stored_mib: how much that of TransferQueue's storage grew by.
    """

    sequences: int
    cpu_s: float
    wall_s: float
    driver_mib: float
    stored_mib: float


class Rollouts:
    """An actor in the place of agent loop, engine and reward workers; it grades and stores responses as they do.

    Args:
        config: of the run.
        prompt_tokens: of every prompt.
        response_tokens: mean length of a response; half of it to one and a half times it are drawn.
    """

    def __init__(self, config: DictConfig, prompt_tokens: int, response_tokens: int) -> None:
        tq.init()
        self._grader, self._group = build_grader(config), int(config.actor_rollout_ref.rollout.n)
        self._response_tokens, self._random = response_tokens, np.random.default_rng(0)
        features = {"image_grid_thw": torch.ones(1, 3, dtype=torch.long)}
        positions = torch.arange(prompt_tokens).expand(4, -1)
        self._prompt = EncodedPrompt([5] * prompt_tokens, features, positions, ("",))

    async def generate_sequences(self, batch: Any) -> None:
        """Store the group of every prompt, many at a time, and return when all are there."""
        rows = [{name: agent_loop._row(value, i) for name, value in batch.items()} for i in range(len(batch))]
        for first in range(0, len(rows), _AT_A_TIME):
            await self._store(rows[first : first + _AT_A_TIME])

    async def _store(self, rows: list[dict[str, Any]]) -> None:
        timing = {"generate_sequences": 0.0, "compute_score": 0.0, "tool_calls": 0.0}
        fields, tags, keys = [], [], []
        for row in rows:
            kept, version = {name: row[name] for name in agent_loop._STORED_COLUMNS}, row["global_steps"] - 1
            scores = self._scores(row)
            for session in range(self._group):
                length = int(self._random.integers(self._response_tokens // 2, self._response_tokens * 3 // 2))
                response = Completion([6] * length, [-0.5] * length, aborted=False)
                score = scores[session % len(scores)]
                fields.append(agent_loop._fields(kept, session, self._prompt, response, score, timing, version))
                tags.append(agent_loop._tag(row, self._prompt, response, version))
                keys.append(f"{row['uid']}_{session}_0")
        await asyncio.gather(*[shared_features.put(row["uid"], self._prompt.features) for row in rows])
        data = list_of_dict_to_tensordict(fields)
        await tq.async_kv_batch_put(keys=keys, fields=data, tags=tags, partition_id="train")
        finished = [{"status": "finished"} for _ in rows]
        await tq.async_kv_batch_put(keys=[row["uid"] for row in rows], partition_id="train", tags=finished)

    def _scores(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        """Return what reward workers answer on a right response and on a wrong one, both of the usual length."""
        sample = sample_from_json(row["extra_info"]["sample"])
        boxes = "".join(f"<box>[{','.join(str(round(x)) for x in box)}]</box>" for box in sample.target_boxes)
        think = "the red circle is there. " * (self._response_tokens // 6) + boxes
        scores: list[dict[str, Any]] = []
        for answer in (sample.answer, "none"):
            grade = self._grader.grade(f"<think>{think}</think><answer>{answer}</answer>", sample)
            detail = to_json(self._grader.row(grade, sample) | {"length": self._response_tokens})
            info = {**grade.composed.parts, DETAIL: detail}
            scores.append({"reward_score": grade.composed.value, "reward_extra_info": info})
        return scores


@dataclass
class WorkerGroup:
    """In the place of the policy; splits and stores what it is sent as the real group does.

    Attributes:
        world_size: policy workers.
        sequences: how many it has been sent.
    """

    world_size: int
    sequences: int = 0
    workers: list[Any] = field(default_factory=list)

    @property
    def _dispatch_info(self) -> dict[str, list[int]]:
        return {"actor": list(range(self.world_size))}

    def update_actor(self, batch: Any) -> dict[str, dict[str, float]]:
        """Count the sequences of a batch."""
        parts = batch.chunk(self.world_size)
        sent = [ray.put(part) for part in parts]
        self.sequences += sum(map(len, parts))
        assert len(sent) == self.world_size
        return {"metrics": {"mfu": 0.0, "lr": 0.0}}


class Meter:
    """What this process uses from `start` to `stop`."""

    def start(self) -> None:
        """Begin; the kernel forgets the greatest memory of this process."""
        Path("/proc/self/clear_refs").write_text("5")
        self._resting, self._stored, self._waited_s = _resident("VmRSS"), _storage(), 0.0
        self._cpu_s, self._wall_s = time.process_time(), time.monotonic()

    def waited(self, seconds: float) -> None:
        """Leave out the time that rollouts took; all of them are stored now."""
        self._waited_s, self._stored = seconds, _storage() - self._stored

    def stop(self, sequences: int) -> Cost:
        """Return what a step has cost."""
        cpu_s, wall_s = time.process_time() - self._cpu_s, time.monotonic() - self._wall_s - self._waited_s
        return Cost(sequences, cpu_s, wall_s, (_resident("VmHWM") - self._resting) / MIB, self._stored / MIB)


class Manager(GroupAgentLoopManager):
    """Sends prompts to actors as the real one does; what they take is left out."""

    def __init__(self, config: DictConfig, actors: list[Any], waited: Callable[[float], None]) -> None:
        super().__init__(config, llm_client=None)
        self.agent_loop_workers, self._waited = actors, waited

    def generate_sequences(self, prompts: Any) -> None:
        """Return when all rollouts are there."""
        started_s = time.monotonic()
        super().generate_sequences(prompts)
        self._waited(time.monotonic() - started_s)


class Trainer(EvidenceTrainer):
    """The real trainer, with nothing behind it; measures its steps.

    Attributes:
        costs: of each step.
    """

    def __init__(self, config: DictConfig, world_size: int) -> None:
        super().__init__(config)
        self.actor_rollout_wg = WorkerGroup(world_size)
        self.meter, self.costs = Meter(), list[Cost]()

    def init(self) -> None:
        """Load tokenizer and data."""
        self._init_tokenizer()
        self._init_dataloader()
        self._init_dump_executor()
        self.resource_pool_manager = SimpleNamespace(get_n_gpus=lambda: self.actor_rollout_wg.world_size)
        self.reward_loop_manager = SimpleNamespace(reward_loop_worker_handles=[], reward_loop_workers=[])
        self.checkpoint_manager = SimpleNamespace(update_weights=_nothing, sleep_replicas=_nothing)
        self.global_steps = 0

    def on_train_begin(self) -> None:
        """Stand behind the run log, so that the end of a step is known."""
        super().on_train_begin()
        self.logger.logger["meter"] = SimpleNamespace(log=self._end)

    def on_step_begin(self) -> None:
        """Begin to measure."""
        self.meter.start()
        super().on_step_begin()

    def _end(self, data: dict[str, float], step: int) -> None:
        rollout = self.config.actor_rollout_ref.rollout
        self.costs.append(self.meter.stop(self.config.data.train_batch_size * rollout.n))


def run(config: DictConfig, world_size: int, actors: list[Any]) -> list[Cost]:
    """Run the steps of a configuration and return what each has cost."""
    trainer = Trainer(config, world_size)
    trainer.init()
    trainer.fit(Manager(config, actors, trainer.meter.waited))
    trainer.watchdog.stop()
    sent, expected = trainer.actor_rollout_wg.sequences, sum(cost.sequences for cost in trainer.costs)
    assert sent == expected, f"the policy was sent {sent} sequences of {expected}"
    return trainer.costs


def _nothing(*_: Any) -> None:
    return None


def _resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _storage() -> int:
    family = psutil.Process().children(recursive=True)
    return sum(process.memory_info().rss for process in family if "SimpleStorageUnit" in " ".join(process.cmdline()))
