import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rewards import Score
from vgr_rl.grounding import Sample, Trace

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def fuzz_rewards(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("fuzz_rewards")


def test_every_reward_keeps_its_promises_on_a_few_thousand_inputs(fuzz_rewards: ModuleType) -> None:
    outcome = fuzz_rewards.fuzz("test", 1500)
    assert outcome.failures == []
    assert outcome.counts["inputs"] == 1500 and outcome.counts["boxes"] > 500
    for case in fuzz_rewards.CASES:
        assert outcome.counts[f"{case.name} ok"] > 100


def too_much(trace: Trace, sample: Sample) -> Score:
    return Score(1.5)


def part_without_a_number(trace: Trace, sample: Sample) -> Score:
    return Score(1.0, {"x": float("nan")})


def failure_without_a_reason(trace: Trace, sample: Sample) -> Score:
    return Score.failed("")


def raises(trace: Trace, sample: Sample) -> Score:
    raise IndexError("too far")


@pytest.mark.parametrize(
    ("reward", "problem"),
    [
        (too_much, "not between 0 and 1"),
        (part_without_a_number, "nan"),
        (failure_without_a_reason, "AssertionError"),
        (raises, "IndexError: too far"),
    ],
)
def test_a_reward_that_breaks_its_promise_is_found(
    fuzz_rewards: ModuleType, monkeypatch: pytest.MonkeyPatch, reward: Any, problem: str
) -> None:
    monkeypatch.setattr(fuzz_rewards, "rewards", lambda: ((fuzz_rewards.Case("x", 0, 1), reward),))
    failures = fuzz_rewards.fuzz("test", 3).failures
    assert len(failures) == 3
    assert all(problem in failure and "Input(response=" in failure for failure in failures)


def test_work_that_grows_faster_than_the_text_is_found(
    fuzz_rewards: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzz_rewards, "BASE_S", 0.0)
    monkeypatch.setattr(fuzz_rewards, "S_PER_CHARACTER", 0.0)
    assert "s for" in fuzz_rewards.fuzz("test", 1).failures[0]


@pytest.mark.slow
def test_the_command_reports_and_exits_0() -> None:
    command = [sys.executable, str(SCRIPTS / "fuzz_rewards.py"), "--inputs", "300"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "300 inputs" in done.stderr and "0 failures" in done.stderr
    assert "dual_iou:" in done.stderr
