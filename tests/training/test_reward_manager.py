"""The reward manager as verl's reward workers call it: token ids in, a reward and numbers out."""

import asyncio
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from tensordict import TensorDict
from transformers import AutoTokenizer
from verl import DataProto

from vgr_rl.config.resolvers import asset_path
from vgr_rl.data.schema import sample_to_json
from vgr_rl.grounding import Sample, Size, Target
from vgr_rl.training.reward_manager import DETAIL, EvidenceRewardManager

MODEL = asset_path("base_qwen2_5_vl")
SAMPLE = Sample(
    "1", "tiny_world", "Where?", "A", "choice", ("left", "right"), (Target((0.0, 0.0, 64.0, 64.0)),), Size(64, 64)
)
RESPONSE = "<box>[0,0,32,64]</box></think><answer>A</answer>"


def graded(terms: dict[str, Any], step: int) -> dict[str, Any]:
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    config = {
        "model": {"path": MODEL, "frame": "auto", "min_pixels": None, "max_pixels": None, "prefill": "<think>"},
        "reward": {"terms": terms, "by_source": {}},
        "trainer": {"total_training_steps": 10},
    }
    ids = tokenizer(RESPONSE, add_special_tokens=False)["input_ids"]
    padded = torch.tensor([[*ids, tokenizer.pad_token_id, tokenizer.pad_token_id]])
    mask = (torch.arange(padded.shape[1]) < len(ids)).long()[None]
    batch = TensorDict({"responses": padded, "attention_mask": mask}, batch_size=1)
    columns = {"extra_info": {"sample": sample_to_json(SAMPLE)}, "global_steps": step}
    data = DataProto(batch=batch, non_tensor_batch={name: np.array([value], object) for name, value in columns.items()})
    manager = EvidenceRewardManager(OmegaConf.create(config), tokenizer, None)
    return asyncio.run(manager.run_single(data))


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
