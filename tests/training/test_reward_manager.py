"""The reward manager as verl's reward workers call it: token ids in, a reward and numbers out."""

import asyncio
import io
import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from aiohttp import web
from omegaconf import OmegaConf
from PIL import Image
from tensordict import TensorDict
from transformers import AutoTokenizer
from verl import DataProto

from tests.judge.stub import StubJudge, chat_reply
from vgr_rl.config.resolvers import asset_path
from vgr_rl.data.schema import sample_to_json
from vgr_rl.grounding import Sample, Size, Target, box_rle, rle_iou
from vgr_rl.segment.server import MaskRequest, MaskServer
from vgr_rl.tiny.segmenter import build_sam2
from vgr_rl.training.evidence_metrics import step_metrics
from vgr_rl.training.reward_manager import DETAIL, EvidenceRewardManager

MODEL = asset_path("base_qwen2_5_vl")
SAMPLE = Sample(
    "1", "tiny_world", "Where?", "A", "choice", ("left", "right"), (Target((0.0, 0.0, 64.0, 64.0)),), Size(64, 64)
)
RESPONSE = "<box>[0,0,32,64]</box></think><answer>A</answer>"


TOKENIZER = AutoTokenizer.from_pretrained(MODEL)


def manager(terms: dict[str, Any], judge: dict[str, Any]) -> EvidenceRewardManager:
    config = {
        "model": {"path": MODEL, "frame": "auto", "min_pixels": None, "max_pixels": None, "prefill": "<think>"},
        "reward": {"terms": terms, "by_source": {}, "num_workers": 2},
        "judge": judge,
        "segmenter": {"model": None, "servers": 1, "timeout_s": 30},
        "trainer": {"total_training_steps": 10},
    }
    return EvidenceRewardManager(OmegaConf.create(config), TOKENIZER, None)


def rollout(step: int, sample: Sample = SAMPLE) -> DataProto:
    ids = TOKENIZER(RESPONSE, add_special_tokens=False)["input_ids"]
    padded = torch.tensor([[*ids, TOKENIZER.pad_token_id, TOKENIZER.pad_token_id]])
    mask = (torch.arange(padded.shape[1]) < len(ids)).long()[None]
    batch = TensorDict({"responses": padded, "attention_mask": mask}, batch_size=1)
    columns = {"extra_info": {"sample": sample_to_json(sample)}, "global_steps": step}
    return DataProto(batch=batch, non_tensor_batch={name: np.array([value], object) for name, value in columns.items()})


def graded(terms: dict[str, Any], step: int) -> dict[str, Any]:
    return asyncio.run(manager(terms, {"name": "rules"}).run_single(rollout(step)))


def test_a_rollout_is_decoded_without_padding_and_graded() -> None:
    result = graded({"accuracy": {}, "format": {}, "dual_iou": {}}, step=1)
    assert result["reward_score"] == pytest.approx(2.5)
    info = result["reward_extra_info"]
    assert (info["accuracy"], info["format"], info["dual_iou"]) == (1.0, 1.0, 0.5)
    row = json.loads(info[DETAIL])
    assert row["response"] == f"<think>{RESPONSE}" and row["boxes_orig_px"] == [[0.0, 0.0, 32.0, 64.0]]


def test_a_schedule_follows_the_training_step() -> None:
    terms = {"dual_iou": {"params": {"schedule": [[0.0, 0.4], [0.5, 0.6]]}}}
    assert [graded(terms, step)["reward_score"] for step in (1, 5, 6, 10)] == [0.5, 0.5, 0.0, 0.0]


def test_a_reward_that_fails_is_not_a_number(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def broken(trace, sample):\n    raise KeyError('judge')\n")
    result = graded({"broken": {"use": f"{tmp_path}/broken.py:broken"}}, step=1)
    assert math.isnan(result["reward_score"])
    assert json.loads(result["reward_extra_info"][DETAIL])["reasons"] == {"broken": "KeyError: 'judge'"}


def test_a_segmenter_makes_masks_of_boxes_and_its_failure_is_no_reward(tmp_path: Path) -> None:
    """The server is the real one, asked in this process."""
    build_sam2().save_pretrained(tmp_path)
    mask = box_rle((0, 0, 32, 64), Size(64, 64))
    sample = replace(SAMPLE, targets=(Target(None, "it", "evidence", mask),))
    terms = {"dual_mask_iou": {"params": {"source": "box_masks"}}}
    server = MaskServer(str(tmp_path))
    picture = io.BytesIO()
    Image.effect_noise((64, 64), 80).save(picture, "PNG")
    images = [picture.getvalue(), b"no picture"]
    subjects = [manager(terms, {"name": "rules"}) for _ in images]
    inputs = []
    for subject, image in zip(subjects, images, strict=True):
        subject._segmenter_config.model, subject._segmenter = "sam2", server
        inputs.append(rollout(1, sample))
        column = np.empty(1, dtype=object)
        column[0] = [{"role": "user", "content": [{"type": "image", "image": {"bytes": image}}]}]
        inputs[-1].non_tensor_batch["raw_prompt"] = column

    async def both() -> list[dict[str, Any]]:
        return [await subject.run_single(given) for subject, given in zip(subjects, inputs, strict=True)]

    good, bad = asyncio.run(both())
    (box_mask,) = asyncio.run(_masks(str(tmp_path), images[0]))
    assert good["reward_score"] == pytest.approx(rle_iou([box_mask], [mask])[0][0])
    assert math.isnan(bad["reward_score"])
    row = json.loads(bad["reward_extra_info"][DETAIL])
    assert "UnidentifiedImageError" in row["segmenter"]
    assert step_metrics([{**row, "group": "a", "truncated": False}])["reward/failure_rate"] == 1.0, (
        "what guards stop a run for"
    )
    assert row["reasons"] == {"dual_mask_iou": "the response has 1 boxes but no masks were made of them"}


def test_no_masks_are_asked_for_where_there_is_nothing_to_hit() -> None:
    subject = manager({"accuracy": {}, "dual_mask_iou": {"params": {"source": "box_masks"}}}, {"name": "rules"})
    subject._segmenter_config.model = "sam2"  # of which no server runs
    result = asyncio.run(subject.run_single(rollout(1, replace(SAMPLE, targets=()))))
    assert result["reward_score"] == 1.0
    assert json.loads(result["reward_extra_info"][DETAIL])["status"]["dual_mask_iou"] == "not_applicable"


async def _masks(model: str, image: bytes) -> Any:
    return (await MaskServer(model).masks(MaskRequest(1, {"bytes": image}, ((0.0, 0.0, 32.0, 64.0),)))).masks


OPEN = replace(SAMPLE, answer_kind="open", options=(), answer="the letter A")


def judged(server: StubJudge, samples: list[Sample]) -> list[dict[str, Any]]:
    """Grade a rollout of each sample at once, in a run with this judge."""

    async def run() -> list[dict[str, Any]]:
        async with server:
            judge = {"name": "endpoint", "urls": [server.url], "model": "stub", "retries": 1, "concurrency": 8}
            grades = manager({"accuracy": {}, "format": {}}, judge)
            results = await asyncio.gather(*(grades.run_single(rollout(1, sample)) for sample in samples))
            assert grades._judge is not None
            await grades._judge.close()
            return results

    return asyncio.run(run())


def says(digit: str, status: int = 200, latency_s: float = 0.0) -> StubJudge:
    async def behave(number: int, request: web.Request) -> web.StreamResponse:
        return web.json_response(chat_reply(digit), status=status)

    return StubJudge(behave, latency_s)


@pytest.mark.parametrize(("digit", "accuracy"), [("1", 1.0), ("0", 0.0)])
def test_an_open_answer_is_worth_what_the_judge_says(digit: str, accuracy: float) -> None:
    server = says(digit)
    (result,) = judged(server, [OPEN])
    assert (result["reward_score"], result["reward_extra_info"]["accuracy"]) == (1.0 + accuracy, accuracy)
    row = json.loads(result["reward_extra_info"][DETAIL])
    assert row["judge"][0]["right"] is bool(accuracy) and row["judge"][0]["source"] == "server"
    assert row["graded_s"][0] <= row["graded_s"][1]


def test_the_judge_is_not_asked_about_choices() -> None:
    server = says("1")
    (result,) = judged(server, [SAMPLE])
    assert server.asked == [] and json.loads(result["reward_extra_info"][DETAIL])["judge"] == []


def test_a_judge_that_is_down_gives_no_reward_and_says_why() -> None:
    result, choice = judged(says("1", status=500), [OPEN, SAMPLE])
    assert math.isnan(result["reward_score"]) and "accuracy" not in result["reward_extra_info"]
    row = json.loads(result["reward_extra_info"][DETAIL])
    assert row["score"] is None and row["status"]["accuracy"] == "failed"
    assert "HTTP 500" in row["reasons"]["accuracy"] and "HTTP 500" in row["judge"][0]["reason"]
    assert choice["reward_score"] == 2.0


def test_rollouts_wait_for_the_judge_side_by_side() -> None:
    samples = [replace(OPEN, answer=f"truth {i}") for i in range(4)]  # as many as one of two workers may ask at once
    started = time.monotonic()
    results = judged(says("1", latency_s=0.5), samples)
    assert len(results) == 4 and time.monotonic() - started < 1.5
