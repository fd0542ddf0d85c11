import importlib.util
import json
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import rewards.adapters.easyr1
from rewards import Composer, Term
from tests.rewards.examples import RIGHT, SAMPLE, WRONG, fails_on_silence


def sample_of(name: str) -> str:
    return json.dumps(SAMPLE | {"id": name})


FLAKY = Composer((Term("flaky", fails_on_silence),))


def load_as_easyr1_does() -> ModuleType:
    """Its reward manager executes the file under a name of its own and reads REWARD_TYPE from it."""
    spec = importlib.util.spec_from_file_location("custom_reward_fn", rewards.adapters.easyr1.__file__)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def inputs_of(responses: list[str], samples: list[str]) -> list[dict[str, Any]]:
    return [
        {"response": response, "response_length": len(response.split()), "ground_truth": sample}
        for response, sample in zip(responses, samples, strict=True)
    ]


def test_its_batch_manager_gets_overall_and_metrics_for_every_response(tmp_path: Path) -> None:
    module = load_as_easyr1_does()
    assert module.REWARD_TYPE == "batch"
    (tmp_path / "mine.yaml").write_text("terms: {accuracy: {weight: 2}, format: {}}")
    score = partial(module.compute_score, rewards=str(tmp_path / "mine.yaml"))
    assert score(inputs_of([RIGHT, WRONG], [sample_of("1")] * 2)) == [
        {"overall": 3.0, "accuracy": 1.0, "format": 1.0, "failed": 0.0},
        {"overall": 1.0, "accuracy": 0.0, "format": 1.0, "failed": 0.0},
    ]


def test_its_sequential_manager_gets_one_score_for_one_input() -> None:
    score = load_as_easyr1_does().compute_score(inputs_of([RIGHT], [sample_of("1")])[0])
    assert score["overall"] == 2.5 and score["dual_iou"] == 0.5


def test_a_failed_response_gets_the_mean_of_its_own_group() -> None:
    responses = ["<answer>x</answer>", "silence", "<answer>xxx</answer>", "silence", "<answer>xxxxxxxx</answer>"]
    samples = [sample_of(name) for name in "11122"]
    scores = rewards.adapters.easyr1.compute_score(inputs_of(responses, samples), rewards=FLAKY)
    assert [score["overall"] for score in scores] == [1.0, 2.0, 3.0, 8.0, 8.0]
    assert [score["failed"] for score in scores] == [0.0, 1.0, 0.0, 1.0, 0.0]


def test_a_group_without_any_score_stays_flat() -> None:
    responses = ["silence", "silence", "<answer>x</answer>", "<answer>xxx</answer>"]
    samples = [sample_of(name) for name in "1122"]
    scores = rewards.adapters.easyr1.compute_score(inputs_of(responses, samples), rewards=FLAKY)
    assert [score["overall"] for score in scores] == [2.0, 2.0, 1.0, 3.0]


def test_a_batch_in_which_everything_fails_stops_the_run() -> None:
    with pytest.raises(RuntimeError, match="none of 2 responses could be graded; the first: flaky: the judge is down"):
        rewards.adapters.easyr1.compute_score(inputs_of(["", "x"], [sample_of("1")] * 2), rewards=FLAKY)
    with pytest.raises(RuntimeError, match="none of 1"):
        rewards.adapters.easyr1.compute_score(inputs_of([""], [sample_of("1")])[0], rewards=FLAKY)


def test_samples_to_which_nothing_applies_are_flat() -> None:
    sample = json.dumps({"answer_kind": "none", "image_size": [9, 9], "targets": []})
    composer = Composer.from_config({"accuracy": {}})
    scores = rewards.adapters.easyr1.compute_score(inputs_of(["a", "b"], [sample] * 2), rewards=composer)
    assert scores == [{"overall": 0.0, "failed": 0.0}] * 2


def test_a_sample_that_cannot_be_read_is_named() -> None:
    with pytest.raises(ValueError, match=r"ground_truth\[0\]: answer_kind=None but expected one of choice, open, none"):
        rewards.adapters.easyr1.compute_score(inputs_of(["a"], ['{"image_size": [9, 9], "targets": []}']))
    with pytest.raises(ValueError, match=r"ground_truth\[0\]: "):
        rewards.adapters.easyr1.compute_score(inputs_of(["a"], ["B"]))
