"""From a configuration to the grade of a response: what training and evaluation share."""

import json
from dataclasses import replace
from typing import Any

import pytest

from rewards.judging import Verdicts
from rewards.rows import read_row
from vgr_rl.grounding import ResizeRule, Sample, Size, Target
from vgr_rl.grounding.frames import FRAMES, Frame
from vgr_rl.training.grading import Grader, build_rewards, to_json

RESPONSE = "the cat <box>[0,0,32,64]</box></think><answer>A</answer>"
TERMS: dict[str, Any] = {"format": {"weight": 0.5}, "dual_iou": {}}


def sample(source: str) -> Sample:
    return Sample(
        "1", source, "Where?", "A", "choice", ("left", "right"), (Target((0.0, 0.0, 64.0, 64.0)),), Size(64, 64)
    )


def score(reward: dict[str, Any], source: str = "photos", progress: float = 0.0) -> float:
    grader = Grader(build_rewards(reward), ResizeRule(16, 256, 65536), "model_px", "<think>")
    return grader.at(progress).grade(RESPONSE, sample(source)).composed.value


def test_a_source_has_the_terms_that_its_changes_leave() -> None:
    reward = {"terms": TERMS, "by_source": {"drawings": {"format": None, "accuracy": {"weight": 2.0}}}}
    assert score(reward) == pytest.approx(0.5 + 0.5)
    assert score(reward, "drawings") == pytest.approx(0.5 + 2.0)
    assert score({"terms": TERMS, "by_source": None}, "drawings") == pytest.approx(1.0)


@pytest.mark.parametrize("frame", FRAMES)
def test_a_dumped_row_is_one_that_can_be_scored_again(frame: Frame) -> None:
    graded = replace(sample("photos"), image_size=Size(100, 80))  # the model sees another size
    grader = Grader(build_rewards({"terms": TERMS}), ResizeRule(16, 256, 65536), frame, "<think>")
    grade = grader.grade(RESPONSE, graded)
    dumped = json.loads(to_json(grader.row(grade, graded)))
    read = read_row(dumped)
    assert read.sample == graded and read.trace() == grade.trace
    assert grade.trace.boxes and (dumped["model_size"] != [100, 80])


def test_a_schedule_follows_the_progress_of_training() -> None:
    boxes = {"dual_iou": {"params": {"schedule": [[0.0, 0.4], [0.5, 0.6]]}}}
    assert score({"terms": boxes}, progress=0.4) == 0.5
    assert score({"terms": boxes}, progress=0.5) == 0.0


def test_a_judge_is_asked_by_the_terms_of_the_source() -> None:
    changes = {"drawings": {"accuracy": {"weight": 2.0}}, "plans": {"accuracy": None}}
    reward = {"terms": {"format": {}, "accuracy": {}}, "by_source": changes}
    grader = Grader(build_rewards(reward), ResizeRule(16, 256, 65536), "model_px", "<think>")
    trace = grader.parse("so</think><answer>kitty</answer>", sample("photos"))
    for source, value in {"photos": 2.0, "drawings": 3.0, "plans": 1.0}.items():
        open_sample = replace(sample(source), answer="cat", answer_kind="open", options=())
        asked = grader.questions(trace, open_sample)
        assert len(asked) == (source != "plans")
        assert grader.score(trace, open_sample, Verdicts(dict.fromkeys(asked, True))).composed.value == value
        assert grader.score(trace, open_sample).composed.parts.get("accuracy", 0.0) == 0.0


def test_a_parameter_can_be_an_object_that_hydra_makes() -> None:
    half = {"_target_": "fractions.Fraction", "_args_": [1, 2]}
    reward = {"terms": {"dual_iou": {"params": {"duplicate_iou": half}}}}
    (term,) = build_rewards(reward).default.terms
    assert term.reward.duplicate_iou == 0.5  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="nowhere.Judge.*reward|reward.*nowhere.Judge"):
        build_rewards({"terms": {"accuracy": {"params": {"judge": {"_target_": "nowhere.Judge"}}}}})
