"""verl reward manager: scores each finished rollout in the reward workers while others are generated."""

from typing import Any

from omegaconf import DictConfig, OmegaConf
from verl import DataProto
from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase

from rewards.compose import Composer
from vgr_rl.data.schema import sample_from_json
from vgr_rl.training.grading import Grader, sample_row, to_json
from vgr_rl.training.model_spec import ModelSpec

DETAIL = "detail"
"""Key of `reward_extra_info` that holds the samples.jsonl row as JSON; every other key is a number."""


class EvidenceRewardManager(RewardManagerBase):
    """Decodes a rollout, grades it, and hands verl the reward, its parts and a row for samples.jsonl.

    A failed reward is NaN, never 0: the advantage estimator leaves the rollout out.
    """

    def __init__(self, config: DictConfig, tokenizer: Any, compute_score: Any, **_: Any) -> None:
        super().__init__(config, tokenizer, compute_score)
        self.grader = build_grader(config)

    async def run_single(self, data: DataProto) -> dict[str, Any]:
        """Grade the last sequence of `data`."""
        item = data[-1:][0]
        response_ids = item.batch["responses"]
        length = int(item.batch["attention_mask"][-response_ids.shape[-1] :].sum())
        response = self.tokenizer.decode(response_ids[:length], skip_special_tokens=True)
        sample = sample_from_json(item.non_tensor_batch["extra_info"]["sample"])
        grade = self.grader.grade(response, sample)
        info: dict[str, Any] = {name: float(value) for name, value in grade.composed.parts.items()}
        info[DETAIL] = to_json(sample_row(grade, sample))
        return {"reward_score": float(grade.composed.value), "reward_extra_info": info}


def reward_terms(config: DictConfig) -> list[dict[str, Any]]:
    """Return `reward.terms` as the list that `Composer.from_config` takes, in the order of the config."""
    terms: Any = OmegaConf.to_container(config.reward.terms, resolve=True)
    return [{"name": name, **term} for name, term in terms.items() if term is not None]


def build_composer(config: DictConfig) -> Composer:
    """Build the weighted terms of `reward.terms`."""
    return Composer.from_config(reward_terms(config))


def build_grader(config: DictConfig) -> Grader:
    """Build the grader of a run from its config and the processor of `model.path`."""
    model = config.model
    spec = ModelSpec.load(model.path, model.frame, model.min_pixels, model.max_pixels)
    return Grader(build_composer(config), spec.resize_rule, spec.frame, config.model.prefill)
