"""The loss of masks on the best rollouts: which they are, and that its gradient is that of the plain formula."""

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.segment_fixtures import write_segmenter
from tests.training.segment_rollouts import BEST, PROMPTS, RESPONSES, plain_masks
from vgr_rl.grounding import Sample, Size, Target, box_rle
from vgr_rl.tiny.segmenter import build_r_sa2va
from vgr_rl.training.best_rollout import NONE, best_of_groups, loss_metrics, masks_to_learn
from vgr_rl.training.segment_loss import dense

ROOT = Path(__file__).parents[2]
SIZE = Size(64, 64)
LEFT, RIGHT, TOP = (box_rle(box, SIZE) for box in ((0, 0, 32, 64), (32, 0, 64, 64), (0, 0, 64, 8)))
SAMPLE = Sample(
    "1", "doc", "Where?", "", "none", (),
    (Target(None, "a", "answer", mask_rle=LEFT), Target(None, "b", "evidence", mask_rle=TOP)), SIZE,
)  # fmt: skip
PASS = "<think>[SEG]</think><answer>[SEG]</answer>"


def test_the_best_rollout_of_a_group_has_the_highest_reward_that_did_not_fail() -> None:
    keys = ["a_1_0", "b_0_0", "a_10_0", "b_1_0", "a_2_0", "c_0_0", "d_x_0_0"]
    rewards = [1.0, math.nan, 2.0, -0.5, 2.0, math.nan, 0.0]
    assert [keys[place] for place in best_of_groups(keys, rewards)] == ["a_2_0", "b_1_0", "d_x_0_0"]


def test_a_best_rollout_is_learnt_if_a_mask_of_its_answer_is_right() -> None:
    assert masks_to_learn(PASS, [TOP, LEFT], SAMPLE) == {"segs": (1,), "truth": [LEFT]}
    both = PASS.replace("<answer>", "<answer>[SEG]")
    assert masks_to_learn(both, [TOP, RIGHT, LEFT], SAMPLE)["segs"] == (1, 2), "of those, the wrong one as well"
    unmade, wrong, unanswered = (PASS, None), (PASS, [LEFT, RIGHT]), ("<think>[SEG]</think>", [LEFT])
    for response, masks in (unmade, wrong, unanswered, (PASS * 2, [LEFT] * 4)):
        assert masks_to_learn(response, masks, SAMPLE) == NONE


def test_metrics_are_means_over_the_best_rollouts_of_the_step() -> None:
    sums = {"bce": 3.0, "dice": 1.0, "n": 2.0}
    metrics = {"actor/lr": 0.1} | {f"actor/best_rollout_sums/{name}": value for name, value in sums.items()}
    found = loss_metrics(metrics)
    assert found == {"masks/best_rollout_loss": 3.25, "masks/best_rollout_bce": 1.5, "masks/best_rollout_dice": 0.5}
    assert metrics == {"actor/lr": 0.1}
    assert loss_metrics({f"best_rollout_sums/{name}": 0.0 for name in sums}) == {} == loss_metrics({})


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """What one process and what two found of the same update."""
    folder = tmp_path_factory.mktemp("best")
    model = write_segmenter(folder / "model")
    script = Path(__file__).with_name("best_rollout_process.py")
    results = {}
    for ranks in (1, 2):
        out = folder / f"{ranks}.pt"
        env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "WORLD_SIZE": str(ranks)}
        processes = [
            subprocess.Popen(
                [sys.executable, script, model, out],
                stderr=subprocess.PIPE,
                text=True,
                env={**env, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            )
            for rank in range(ranks)
        ]
        errors = [process.communicate()[1] for process in processes]
        assert not any(process.returncode for process in processes), "\n".join(error[-3000:] for error in errors)
        results[ranks] = torch.load(out)
    return results


def plain() -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Gradients of the projector and terms of the loss by the model's own forward pass and the formulas."""
    model, processor = build_r_sa2va("qwen2_5_vl")
    model.freeze(train_decoder=False)
    bces, dices = [], []
    for uid, text, (segs, truth) in zip(PROMPTS, RESPONSES, BEST, strict=True):
        if not segs:
            continue
        masks = plain_masks(model, processor, uid, text)[segs]
        inside, true = masks.sigmoid().amax(0), dense([truth], masks.shape[-1]).any(0).float()
        bces.append(-(true * inside.log() + (1 - true) * (1 - inside).log()).mean())
        dices.append(1 - (2 * (inside * true).sum() + 1) / (inside.sum() + true.sum() + 1))
    bce, dice = torch.stack(bces).mean(), torch.stack(dices).mean()
    (0.5 * (2.0 * bce + 0.5 * dice)).backward()
    gradients = {name: own.grad for name, own in model.named_parameters() if own.grad is not None}
    return gradients, {"bce": bce.item(), "dice": dice.item()}


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("cut", ["whole", "parts"])
def test_the_gradient_is_that_of_the_formula_whatever_micro_batches_and_processes(
    found: dict[int, dict[str, Any]], ranks: int, cut: str
) -> None:
    gradients, terms = plain()
    own, reference = found[ranks][cut], found[1]["whole"]
    assert (own["micro_batches"] == 1) == (cut == "whole")
    trained = {name for name, grad in own["gradients"].items() if grad.any()}
    assert (
        {name for name in trained if ".lora_" not in name}
        == set(gradients)
        == {f"projector.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")}
    )
    assert any(".lora_B" in name for name in trained), "through the hidden state at [SEG]"
    for name, gradient in gradients.items():
        torch.testing.assert_close(own["gradients"][name], gradient, rtol=1e-3, atol=1e-7)
    for name, gradient in reference["gradients"].items():
        torch.testing.assert_close(own["gradients"][name], gradient, rtol=1e-3, atol=1e-7)
    if ranks == 1:
        assert own["loss"] == pytest.approx(0.5 * (2.0 * terms["bce"] + 0.5 * terms["dice"]), rel=1e-4)
        sums = {name.rsplit("/")[-1]: value for name, value in own["metrics"].items()}
        assert sums == pytest.approx({"bce": 2 * terms["bce"], "dice": 2 * terms["dice"], "n": 2}, rel=1e-4)
