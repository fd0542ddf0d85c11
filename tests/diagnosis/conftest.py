"""Run directories that the run log writes from responses graded by the real rewards: healthy, or sick in one way."""

import json
import random
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rewards import load_rewards
from rewards.accuracy import Question
from rewards.judging import Verdicts
from vgr_rl.grounding import Frame, ImageGeometry, ResizeRule, Sample, Size, Target
from vgr_rl.grounding.frames import Box
from vgr_rl.judge.client import Effort, JudgeFailed, Ruling
from vgr_rl.judge.metrics import as_row
from vgr_rl.training.evidence_metrics import step_metrics
from vgr_rl.training.grading import Grader, to_json
from vgr_rl.training.run_log import RunLog

SIZE, RULE = Size(800, 600), ResizeRule(factor=28, min_pixels=4 * 28 * 28, max_pixels=400 * 28 * 28)
REWARDS = load_rewards("treevgr")
LIMIT = 512  # data.max_response_length, tokens


@pytest.fixture(scope="session")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A healthy run; not to be written to."""
    return write_run(tmp_path_factory.mktemp("healthy"))


@pytest.fixture(scope="session")
def runs() -> ModuleType:
    """This module: test files cannot import one another."""
    return sys.modules[__name__]


def _length(_: float) -> int:
    return 80


def _right(progress: float) -> float:
    return 0.4 + 0.3 * progress


@dataclass
class Policy:
    """How rollouts look, `progress` being a number in [0, 1]; the defaults are healthy.

    Attributes:
        written: the frame in which the model writes.
        read: the frame in which the run reads.
        shift: by how many pixels boxes miss, at most.
        rewrite: what becomes of the boxes before they are written.
        right: share of right answers.
        length: tokens of a response.
        cut: share of responses that end at the limit.
        answer_kind: choice or open.
        truth: the true answer; answers are A or B.
        outcome: what the judge says about an open answer, when there is one.
        end: what the response ends with.
        alike: whether all rollouts of a group are the same.
    """

    written: Frame = "norm1000"
    read: Frame = "norm1000"
    shift: int = 30
    rewrite: Callable[[list[Box]], list[Box]] = field(default=lambda boxes: boxes)
    right: Callable[[float], float] = _right
    length: Callable[[float], int] = _length
    cut: float = 0.01
    answer_kind: Any = "choice"
    truth: str = "A"
    outcome: Callable[[Question], Ruling | JudgeFailed] | None = None
    end: str = "</think>"
    alike: bool = False


def write_run(
    path: Path,
    policy: Policy | None = None,
    config: dict[str, Any] | None = None,
    steps: int = 12,
    seed: int = 0,
) -> Path:
    """Write a run of 6 groups of 4."""
    path.mkdir(parents=True, exist_ok=True)
    policy, rng, log = policy or Policy(), random.Random(seed), RunLog(path)
    (path / "config.yaml").write_text(json.dumps(_config(policy) | (config or {})))  # JSON is YAML
    for step in range(1, steps + 1):
        progress = step / steps
        rows = [row for group in range(6) for row in _group(policy, rng, step, group, progress)]
        log.samples(map(to_json, rows))
        log.log(_engine(rng, progress, rows) | step_metrics(rows), step)
    return path


def with_numbers(run_dir: Path, path: Path, numbers: Callable[[float], dict[str, float | None]]) -> Path:
    """Copy a run with other numbers of the engine, by progress."""
    shutil.copytree(run_dir, path)
    steps = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    log = RunLog(path)
    (path / "metrics.jsonl").unlink()
    for step in steps:
        log.log(step["data"] | numbers(step["step"] / len(steps)), step["step"])
    return path


def ruled(right: bool) -> Ruling:
    """Return the verdict of a judge that had to be asked."""
    return Ruling(right, "server", Effort(latency_s=0.2, requests=1, tokens=200))


def _config(policy: Policy) -> dict[str, Any]:
    return {
        "model": {"path": "no/such/model", "frame": policy.read},
        "data": {"max_prompt_length": 1024, "max_response_length": LIMIT, "truncation": "error"},
        "reward": {"terms": {name: {"use": name, "weight": 1.0} for name in ("accuracy", "format", "dual_iou")}},
        "actor_rollout_ref": {"actor": {"optim": {"lr": 1.0e-6, "clip_grad": 1.0}}},
        "guards": {"min_correlation_tokens": 256, "max_reward_failure_rate": 0.2},
    }


def _engine(rng: random.Random, progress: float, rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return what verl logs, for a run in bfloat16 with a reference policy."""
    tokens = sum(row["length"] for row in rows)
    return {
        "actor/entropy": 0.5 - 0.25 * progress + rng.gauss(0, 0.01),
        "actor/grad_norm": 0.2 * rng.lognormvariate(0, 0.3),
        "actor/ppo_kl": rng.gauss(0, 1e-3),
        "actor/kl_loss": 0.02 * progress,
        "training/rollout_actor_probs_pearson_corr": 0.9995 - 1e-4 * rng.random(),
        "training/rollout_probs_diff_mean": 0.002,
        "perf/total_num_tokens": tokens + 32 * 500,
        "response_length/mean": tokens / len(rows),
        "prompt_length/mean": 500.0,
        "prompt_length/max": 700.0,
    }


def _group(policy: Policy, rng: random.Random, step: int, group: int, progress: float) -> list[dict[str, Any]]:
    targets = tuple(Target(_box(rng)) for _ in range(rng.randint(1, 3)))
    sample = Sample(f"{step}-{group}", "source", "Which?", policy.truth, policy.answer_kind, (), targets, SIZE)
    grader = Grader(REWARDS, RULE, policy.read, "<think>")
    state, rows = rng.getstate(), []
    for rollout in range(4):
        if policy.alike:
            rng.setstate(state)
        response = _response(policy, rng, sample, progress)
        length = LIMIT if rng.random() < policy.cut else policy.length(progress) + rng.randint(-9, 9)
        judged = _judged(grader, policy, response, sample)
        rows.append(
            {
                **judged,
                "image": None,
                "step": step,
                "split": "train",
                "group": f"step{step}-prompt{group}",
                "rollout": rollout,
                "advantage": 0.0,
                "length": length,
                "truncated": length >= LIMIT,
            }
        )
    return rows


def _judged(grader: Grader, policy: Policy, response: str, sample: Sample) -> dict[str, Any]:
    if policy.outcome is None:
        return grader.row(grader.grade(response, sample), sample)
    trace = grader.parse(response, sample)
    outcomes = {question: policy.outcome(question) for question in grader.questions(trace, sample)}
    verdicts = {q: outcome.right if isinstance(outcome, Ruling) else outcome for q, outcome in outcomes.items()}
    row = grader.row(grader.score(trace, sample, Verdicts(verdicts)), sample)
    return {**row, "judge": [as_row(outcome) for outcome in outcomes.values()], "graded_s": [0.0, 0.2]}


def _response(policy: Policy, rng: random.Random, sample: Sample, progress: float) -> str:
    near = [_moved(box, rng, policy.shift * (1 - progress / 2)) for box in sample.target_boxes]
    geometry: ImageGeometry = RULE.geometry(SIZE)
    boxes = [geometry.written(box, policy.written) for box in policy.rewrite(near)]
    text = " ".join(f"There is one at <box>[{x1},{y1},{x2},{y2}]</box>." for x1, y1, x2, y2 in boxes)
    answer = "A" if rng.random() < policy.right(progress) else "B"
    return f"{text} So it is.{policy.end}<answer>{answer}</answer>"


def _box(rng: random.Random) -> Box:
    x, y = rng.randint(20, 560), rng.randint(20, 400)
    return (x, y, x + rng.randint(80, 200), y + rng.randint(80, 160))


def _moved(box: Box, rng: random.Random, far: float) -> Box:
    x1, y1, x2, y2 = (max(0.0, side + rng.uniform(-far, far)) for side in box)
    return (x1, y1, max(x2, x1 + 1), max(y2, y1 + 1))
