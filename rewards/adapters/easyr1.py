"""Our rewards as EasyR1's reward function, in its batch and in its sequential form.

EasyR1 loads a function by path, `worker.reward.reward_function=…/rewards/adapters/easyr1.py:compute_score`, binds
`worker.reward.reward_function_kwargs` and reads the two constants below from the file. Each input has `response`,
`response_length` and `ground_truth`, which is the data column `data.answer_key`: let that be the sample.

EasyR1 has no way to leave a response out: one that could not be graded gets its group's mean, an advantage of 0.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, overload

from rewards.adapters.batch import as_reward_sets, grade, without_gaps
from rewards.compose import Composer, RewardSets

REWARD_NAME = "vgr-rl"
REWARD_TYPE = "batch"


@overload
def compute_score(reward_inputs: Mapping[str, Any], rewards: RewardSets | Composer | str = ...) -> dict[str, float]: ...


@overload
def compute_score(
    reward_inputs: Sequence[Mapping[str, Any]], rewards: RewardSets | Composer | str = ...
) -> list[dict[str, float]]: ...


def compute_score(
    reward_inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]], rewards: RewardSets | Composer | str = "treevgr"
) -> dict[str, float] | list[dict[str, float]]:
    """Grade a batch of EasyR1's inputs, or (`REWARD_TYPE = "sequential"` in a file of yours) a single one.

    Args:
        reward_inputs: what EasyR1 hands over.
        rewards: a preset's name, the path of a YAML file, or the rewards themselves.

    Returns:
        for each input, `overall` (the score), the parts, and `failed` (1 when a term failed, else 0).

    Raises:
        ValueError: when the rewards cannot be found or a sample cannot be read.
        RuntimeError: when no response of the batch could be graded; a batch of one has no group to take a mean from.

    Example:
        >>> sample = {"answer": "A", "answer_kind": "choice", "image_size": [64, 48], "targets": []}
        >>> inputs = {"response": "<think>so</think><answer>A</answer>", "response_length": 9, "ground_truth": sample}
        >>> compute_score([inputs])
        [{'overall': 2.0, 'accuracy': 1.0, 'format': 1.0, 'failed': 0.0}]
    """
    sets = as_reward_sets(rewards)
    if isinstance(reward_inputs, Mapping):
        return _scores(sets, [reward_inputs])[0]
    return _scores(sets, reward_inputs)


def _scores(rewards: RewardSets, inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    grades = [
        grade(rewards, entry["ground_truth"], entry["response"], f"ground_truth[{index}]")
        for index, entry in enumerate(inputs)
    ]
    overall = without_gaps(grades, [_group(entry["ground_truth"]) for entry in inputs])
    return [
        {"overall": value, **graded.parts, "failed": float(graded.status == "failed")}
        for value, graded in zip(overall, grades, strict=True)
    ]


def _group(sample: object) -> str:
    """Return what the responses to one prompt have in common; EasyR1 says nothing else about it."""
    return sample if isinstance(sample, str) else json.dumps(sample, sort_keys=True, default=str)
