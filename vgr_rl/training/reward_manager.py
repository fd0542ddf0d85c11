"""verl reward manager: scores each finished rollout in the reward workers while others are generated."""

import functools
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from verl import DataProto
from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase

from rewards.accuracy import Question
from rewards.judging import Verdicts
from vgr_rl.data.schema import sample_from_json
from vgr_rl.grounding import Trace
from vgr_rl.judge.client import JudgeClient, JudgeFailed, Ruling
from vgr_rl.judge.metrics import as_row
from vgr_rl.judge.pool import base_urls
from vgr_rl.judge.settings import judge_settings
from vgr_rl.segment.server import ImageRef, MaskClient, MaskRequest, running_client
from vgr_rl.training.grading import Grader, build_rewards, to_json
from vgr_rl.training.model_spec import ModelSpec
from vgr_rl.training.response_text import ResponseDecoder

DETAIL = "detail"
"""Key of `reward_extra_info` that holds the samples.jsonl row as JSON; every other key is a number."""

_sample = functools.lru_cache(maxsize=256)(sample_from_json)  # read and checked once for the rollouts of a group


class EvidenceRewardManager(RewardManagerBase):
    """Decodes a rollout, grades it, and hands verl the reward, its parts and a row for samples.jsonl.

    A failed reward is NaN, never 0: the advantage estimator leaves the rollout out. While one rollout waits for the
    judge, others are graded.
    """

    _current: tuple[int, Grader]
    _segmenter: MaskClient | None

    def __init__(
        self,
        config: DictConfig,
        tokenizer: Any,
        compute_score: Any,
        reward_router_address: str | None = None,
        reward_model_tokenizer: Any = None,
    ) -> None:
        super().__init__(config, tokenizer, compute_score)
        self._decode = ResponseDecoder(tokenizer)
        self._grader = build_grader(config)
        self._judge = build_judge(config)
        self._segmenter_config, self._segmenter = config.segmenter, None
        if self._judge is not None and reward_router_address is not None:
            self._judge.use(base_urls(reward_router_address))
        self._total_steps = int(config.trainer.total_training_steps)
        self._current = 0, self._grader

    async def run_single(self, data: DataProto) -> dict[str, Any]:
        """Grade the last sequence of `data`."""
        arrived_s = time.time()
        item = data[-1:][0]
        response_ids = item.batch["responses"]
        length = int(item.batch["attention_mask"][-response_ids.shape[-1] :].sum())
        response = self._decode(response_ids[:length].tolist())
        sample = _sample(item.non_tensor_batch["extra_info"]["sample"])
        grader = self._grader_of(int(item.non_tensor_batch["global_steps"]))
        trace, judged = grader.parse(response, sample), dict[str, Any]()
        if (masks := item.non_tensor_batch.get("masks")) is not None:
            trace = trace._replace(masks=tuple(masks))
        if self._segmenter_config.model is not None and trace.boxes and sample.targets:
            trace, judged["segmenter"] = await self._with_box_masks(trace, item.non_tensor_batch)
        if self._judge is None:
            grade = grader.score(trace, sample)
        else:
            outcomes = {question: await _outcome(self._judge, question) for question in grader.questions(trace, sample)}
            grade = grader.score(trace, sample, _verdicts(outcomes))
            judged |= {"judge": list(map(as_row, outcomes.values())), "graded_s": [arrived_s, time.time()]}
        info: dict[str, Any] = {name: float(value) for name, value in grade.composed.parts.items()}
        info[DETAIL] = to_json(grader.row(grade, sample) | {"length": length} | judged)
        return {"reward_score": float(grade.composed.value), "reward_extra_info": info}

    async def _with_box_masks(self, trace: Trace, row: Mapping[str, Any]) -> tuple[Trace, str | None]:
        """Ask a server for the masks of a response's boxes; return it with them, and why there are none."""
        if self._segmenter is None:
            self._segmenter = running_client(self._segmenter_config.servers, self._segmenter_config.timeout_s)
        boxes = tuple(box.box_orig_px for box in trace.boxes)
        reply = await self._segmenter.masks(MaskRequest(int(row["global_steps"]), image_of(row["raw_prompt"]), boxes))
        return trace._replace(box_masks=reply.masks), reply.reason

    def use_judges(self, urls: Sequence[str]) -> None:
        """Ask these servers from now on."""
        assert self._judge is not None
        self._judge.use(urls)

    def _grader_of(self, step: int) -> Grader:
        """Return the grader of a training step (from 1): rewards may have a schedule."""
        if self._current[0] != step:
            self._current = step, self._grader.at(min(max(step - 1, 0) / self._total_steps, 1.0))
        return self._current[1]


def build_grader(config: DictConfig) -> Grader:
    """Build the grader of a run from its config and the processor of `model.path`."""
    model = config.model
    spec = ModelSpec.load(model.path, model.frame, model.min_pixels, model.max_pixels)
    reward: Any = OmegaConf.to_container(config.reward, resolve=True)
    return Grader(build_rewards(reward), spec.resize_rule, spec.frame, config.model.prefill)


def image_of(messages: Sequence[Mapping[str, Any]]) -> ImageRef:
    """Return the first image of a conversation as `EvidenceDataset` writes it."""
    parts = [part for message in messages if isinstance(message["content"], list) for part in message["content"]]
    image: ImageRef = next(part["image"] for part in parts if part["type"] == "image")
    return image


def build_judge(config: DictConfig) -> JudgeClient | None:
    """Build the judge of one reward worker, which has its share of `judge.concurrency`; None when no model judges."""
    judge: Any = OmegaConf.to_container(config.judge, resolve=True)
    settings = judge_settings(judge)
    if settings is None:
        return None
    return JudgeClient(settings, share=math.ceil(settings.concurrency / config.reward.num_workers))


async def _outcome(judge: JudgeClient, question: Question) -> Ruling | JudgeFailed:
    try:
        return await judge.ask(question)
    except JudgeFailed as error:
        return error


def _verdicts(outcomes: dict[Question, Ruling | JudgeFailed]) -> Verdicts:
    return Verdicts({asked: got.right if isinstance(got, Ruling) else got for asked, got in outcomes.items()})
