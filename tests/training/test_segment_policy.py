"""Masks that the policy makes of its rollouts are those of the model's own forward pass, whatever was trained."""

import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.segment_fixtures import write_segmenter
from tests.training.segment_rollouts import PICTURES, PROMPTS, RESPONSES, plain_masks
from vgr_rl.grounding import Size, rle_iou
from vgr_rl.segment.predict import to_rles
from vgr_rl.tiny.segmenter import build_r_sa2va

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
SAME = 0.999  # IoU: a pixel of a logit of 0 may fall to either side


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("policy")
    script = Path(__file__).with_name("segment_policy_process.py")
    result = subprocess.run(
        [sys.executable, script, write_segmenter(folder / "model"), folder / "found.pt"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr[-4000:]
    loaded: dict[str, Any] = torch.load(folder / "found.pt", weights_only=False)
    return loaded


def ious(some: list[list[Any]], others: list[list[Any]]) -> list[float]:
    assert list(map(len, some)) == list(map(len, others)) == [3, 0, 1, 1], "a [SEG] of the prompt is no mask"
    pairs = zip(itertools.chain(*some), itertools.chain(*others), strict=True)
    return [rle_iou([one], [other])[0][0] for one, other in pairs]


def plain(model: Any, processor: Any) -> list[list[Any]]:
    """Masks of the responses by the model's own forward pass, one by one."""
    found = []
    for uid, text in zip(PROMPTS, RESPONSES, strict=True):
        with torch.no_grad():
            masks = plain_masks(model, processor, uid, text)
        found.append(to_rles(masks, Size(*PICTURES[uid].size)))
    return found


@pytest.mark.parametrize("when", ["start", "in parts", "trained"])
def test_masks_are_those_of_a_plain_forward_pass(found: dict[str, Any], when: str) -> None:
    model, processor = build_r_sa2va("qwen2_5_vl")
    if when == "trained":
        model.load_state_dict(found["weights"])
    masks = found["masks"][when]
    assert min(ious(masks, plain(model.eval(), processor))) > SAME
    assert {tuple(mask["size"]) for row in masks for mask in row} == {(64, 64), (64, 96)}, "of their pictures"


def test_masks_change_with_the_weights(found: dict[str, Any]) -> None:
    start, trained = (found["masks"][when] for when in ("start", "trained"))
    assert max(ious(start, trained)) < SAME


def test_an_image_is_embedded_once_whatever_its_responses_and_micro_batches(found: dict[str, Any]) -> None:
    assert [sum(images) for images in found["encoded"].values()] == [2, 2]


def test_adapters_train_and_are_served_merged(found: dict[str, Any]) -> None:
    assert found["trains"] and all(".lora_" in name and ".language_model." in name for name in found["trains"])
    own = {name.removeprefix("vlm."): weight for name, weight in found["weights"].items() if name.startswith("vlm.")}
    assert own.keys() == found["served"].keys()
    for name, weight in own.items():
        torch.testing.assert_close(found["served"][name].float(), weight, rtol=1e-2, atol=1e-5)  # bfloat16
