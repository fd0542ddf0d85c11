"""Rewards of rollouts whose masks come from the policy workers, and what vLLM loads of such a policy."""

import asyncio
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from transformers import AutoConfig, AutoTokenizer

from tests.training.segment_fixtures import write_segmenter
from vgr_rl.data.schema import sample_to_json
from vgr_rl.grounding import Sample, Size, Target, box_rle
from vgr_rl.segment import auto
from vgr_rl.tiny.model import build_processor
from vgr_rl.training.mask_rewards import RewardsAfterMasks, _reward_input, rewards_of
from vgr_rl.training.reward_manager import DETAIL, EvidenceRewardManager
from vgr_rl.training.rollout_model import served_part

SIZE = Size(64, 64)
LEFT, WHOLE = box_rle((0, 0, 48, 64), SIZE), box_rle((0, 0, 64, 64), SIZE)
SAMPLE = Sample("1", "doc", "Where?", "", "none", (), (Target(None, "it", "answer", mask_rle=WHOLE),), SIZE)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_segmenter(tmp_path_factory.mktemp("policy"))


def graded(model: Path, texts: list[str], masks: list[Any]) -> list[dict[str, Any]]:
    tokenizer = AutoTokenizer.from_pretrained(model)
    config = {
        "model": {"path": str(model), "frame": "auto", "min_pixels": None, "max_pixels": None, "prefill": ""},
        "reward": {"terms": {"seg_format": {}, "mask_iou": {}}, "by_source": {}, "num_workers": 1},
        "judge": {"name": "rules"},
        "segmenter": {"model": None, "servers": 1, "timeout_s": 30},
        "trainer": {"total_training_steps": 10},
    }
    manager = EvidenceRewardManager(OmegaConf.create(config), tokenizer, None)
    responses = [torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    info = [{"sample": sample_to_json(SAMPLE)}] * len(texts)
    given = _reward_input(responses, info, [{"rles": rles} for rles in masks], step=1)

    async def all_of_them() -> list[dict[str, Any]]:
        return [await manager.run_single(given[place : place + 1]) for place in range(len(given))]

    return asyncio.run(all_of_them())


def test_responses_are_graded_with_their_masks_and_without_masks_not_at_all(model: Path) -> None:
    both = "<think>red is at [SEG].</think><answer>[SEG]</answer>"
    texts, masks = [both, "<think>a</think><answer>[SEG]</answer>", both], [[WHOLE, LEFT], [WHOLE], None]
    first, second, failed = graded(model, texts, masks)
    assert first["reward_score"] == pytest.approx(1.0 + 0.75)
    assert second["reward_score"] == pytest.approx(0.5 + 1.0)
    assert math.isnan(failed["reward_score"])
    row = json.loads(failed["reward_extra_info"][DETAIL])
    assert row["reasons"] == {"mask_iou": "the response has 2 [SEG] but no masks were made for it"}
    assert json.loads(first["reward_extra_info"][DETAIL])["pred_masks"] == [WHOLE, LEFT]


def test_only_the_rewards_of_an_r_sa2va_wait_for_masks(model: Path, tmp_path: Path) -> None:
    assert rewards_of(OmegaConf.create({"model": {"path": str(model)}})) is RewardsAfterMasks
    assert rewards_of(OmegaConf.create({"model": {"path": str(tmp_path)}})) is not RewardsAfterMasks


def test_vllm_loads_a_vision_language_model_that_knows_seg(model: Path, tmp_path: Path) -> None:
    auto.register(model)
    own = AutoConfig.from_pretrained(model)
    processor = build_processor("qwen2_5_vl")
    processor.tokenizer = AutoTokenizer.from_pretrained(model)
    given = SimpleNamespace(hf_config=own, local_path=str(model), get_processor=lambda: processor)
    with pytest.raises(ValueError, match="load_format=safetensors but"):
        served_part(given, "safetensors", tmp_path / "served")
    served = served_part(given, "dummy", tmp_path / "served")
    config = AutoConfig.from_pretrained(served.local_path)
    assert config.architectures == ["Qwen2_5_VLForConditionalGeneration"]
    assert config.get_text_config().vocab_size == own.get_text_config().vocab_size
    tokenizer = AutoTokenizer.from_pretrained(served.local_path)
    assert tokenizer.convert_tokens_to_ids("[SEG]") == own.seg_token_id
