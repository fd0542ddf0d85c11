"""From a decoded response to a reward with its parts: the one path that training and evaluation share."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from rewards import judging
from rewards.accuracy import Judge, Question
from rewards.compose import Composed, RewardSets
from rewards.diagnostics import diagnose
from vgr_rl.grounding.frames import Frame
from vgr_rl.grounding.geometry import ResizeRule
from vgr_rl.grounding.sample import Sample, Target
from vgr_rl.grounding.trace import Trace, parse_trace


@dataclass(frozen=True, slots=True)
class Grade:
    """A parsed and scored response."""

    trace: Trace
    composed: Composed


@dataclass(frozen=True, slots=True)
class Grader:
    """Parses a response in the model's frame and scores it.

    Attributes:
        rewards: the weighted reward terms of each data source.
        resize_rule: how the model's processor resizes images.
        frame: the frame of the boxes that the model writes.
        prefill: literal text behind the generation prompt, restored before parsing.
    """

    rewards: RewardSets
    resize_rule: ResizeRule
    frame: Frame
    prefill: str

    def grade(self, response: str, sample: Sample) -> Grade:
        """Score one response to one sample, without a judge."""
        return self.score(self.parse(response, sample), sample)

    def parse(self, response: str, sample: Sample) -> Trace:
        """Read one response to one sample."""
        geometry = self.resize_rule.geometry(sample.image_size)
        return parse_trace(response, geometry, self.frame, prefill=self.prefill)

    def questions(self, trace: Trace, sample: Sample) -> list[Question]:
        """Return what a judge has to be asked before the response is scored with it."""
        return judging.questions(self.rewards.of(sample), trace, sample)

    def score(self, trace: Trace, sample: Sample, judge: Judge | None = None) -> Grade:
        """Score one response that has been read; `judge` knows the verdicts on its `questions`."""
        composer = self.rewards.of(sample)
        return Grade(trace, (judging.with_judge(composer, judge) if judge else composer).score(trace, sample))

    def row(self, grade: Grade, sample: Sample) -> dict[str, Any]:
        """Return the part of a samples.jsonl row that the grade and the sample determine.

        It is one that `rewards.rows` reads: the response holds the prefill, and its boxes as the model wrote them.
        """
        composed, trace = grade.composed, grade.trace
        failed = composed.status == "failed"
        return {
            "id": sample.id,
            "data_source": sample.data_source,
            "question": sample.question,
            "options": list(sample.options),
            "answer": sample.answer,
            "answer_kind": sample.answer_kind,
            "predicted_answer": trace.answer,
            "response": trace.text,
            "frame": self.frame,
            "score": None if failed else composed.value,
            "parts": composed.parts,
            "terms": {name: score.value for name, score in composed.terms.items() if score.status == "ok"},
            "status": {name: score.status for name, score in composed.terms.items()},
            "reasons": {name: score.reason for name, score in composed.terms.items() if score.reason},
            "diagnostics": diagnose(trace, sample),
            "malformed_boxes": trace.malformed,
            "boxes_orig_px": [list(box.box_orig_px) for box in trace.boxes],
            "targets_orig_px": [list(box) for box in sample.target_boxes],
            "targets": [_target_fields(target) for target in sample.targets],
            "image_size": list(sample.image_size),
            "model_size": list(self.resize_rule.geometry(sample.image_size).model_size),
            **({} if trace.masks is None else {"pred_masks": list(trace.masks)}),
        }

    def at(self, progress: float) -> "Grader":
        """Return the grader of one moment of training, `progress` in [0, 1]: rewards may have a schedule."""
        return replace(self, rewards=self.rewards.at(progress))


def build_rewards(reward: Mapping[str, Any]) -> RewardSets:
    """Build the rewards of the resolved `reward` group of a configuration.

    Args:
        reward: has `terms` and may have `by_source`, both as `RewardSets.from_config` takes them. A parameter that is a
            mapping with `_target_` is made by Hydra: `{_target_: package.Class, argument: value}`.

    Raises:
        ValueError: when a term or a parameter cannot be made; names the key.
    """
    described = {key: reward.get(key) or {} for key in ("terms", "by_source")}
    try:
        return RewardSets.from_config(**instantiate(described, _convert_="all"))
    except InstantiationException as error:
        raise ValueError(f"reward: {error}") from error


def _target_fields(target: Target) -> dict[str, Any]:
    fields = {"box": target.box_orig_px, "mask": target.mask_rle, "name": target.name, "role": target.role}
    return {name: value for name, value in fields.items() if value}


def to_json(row: dict[str, Any]) -> str:
    """Return a row as one line of strict JSON."""
    return json.dumps(row, ensure_ascii=False, allow_nan=False)
