"""What a cold start of R-Sa2VA plans, and what it refuses before it starts."""

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from transformers import AutoTokenizer

from tests.training.segment_fixtures import write_mask_data, write_segmenter
from tests.training.sft_fixtures import run_overrides, sft_config, write_tiny_data
from vgr_rl.data.schema import write_sft
from vgr_rl.data.tiny_masks import sft_rows
from vgr_rl.errors import ConfigError
from vgr_rl.grounding import Size, box_rle
from vgr_rl.tiny.segmenter import build_r_sa2va
from vgr_rl.training.memory import Shapes
from vgr_rl.training.segment_parts import choose_trained
from vgr_rl.training.segment_preflight import frozen_seg
from vgr_rl.training.sft_preflight import Plan, check


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("segment")
    write_segmenter(folder / "model")
    write_mask_data(folder, train=12, val=4)
    return folder


def _check(folder: Path, **values: Any) -> Plan:
    return check(sft_config(*run_overrides(folder, **values)), folder / "scratch")


def test_the_plan_says_what_trains_and_what_is_learnt(folder: Path) -> None:
    plan = _check(folder, **{"model.lora_rank": 4})
    text = "\n".join(plan.lines())
    assert "RSa2VA; LoRA of rank 4, projector and mask decoder train" in text
    rows = list(sft_rows("sft", 12, 0))
    assert plan.train.masks == sum(len(row.masks or []) for row in rows) > 24
    assert f"masks    {plan.train.masks} of [SEG]; loss 2 BCE + 0.5 Dice on 12544 points of 5 masks an image" in text
    assert plan.config.model.external_lib == "vgr_rl.training.segment_engine"
    assert plan.config.data.custom_cls.name == "MaskedColdStartDataset"


def test_an_item_has_the_picture_for_sam2_and_the_masks(folder: Path) -> None:
    from verl.utils import hf_processor

    from vgr_rl.segment import auto
    from vgr_rl.training.segment_dataset import MaskedColdStartDataset

    auto.register()
    config, processor = sft_config(*run_overrides(folder)), hf_processor(folder / "model")
    dataset = MaskedColdStartDataset(str(folder / "train.parquet"), processor.tokenizer, config.data, processor)
    for index, row in enumerate(sft_rows("sft", 12, 0)):
        item = dataset[index]
        assert item["multi_modal_inputs"]["sam2_pixels"].shape == (1, 3, 64, 64)
        assert item["true_masks"] == {"rles": row.masks}
        seg = json.loads((folder / "model" / "config.json").read_text())["seg_token_id"]
        assert ((item["input_ids"] == seg) & (item["loss_mask"] == 1)).sum() == len(row.masks or [])


def test_seg_that_cannot_be_learnt_is_told_before_the_start(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    told = r"the frozen head cannot tell [SEG] from <p>, </p>, <vp>, </vp>"
    plan = _check(folder, **{"model.lora_rank": 4})
    assert told in "\n".join(plan.lines()), "its rows are new"
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    for key, value in (("masks.train_embeddings", True), ("model.lora_rank", 0)):
        config = copy.deepcopy(plan.config)
        OmegaConf.update(config, key, value)
        assert frozen_seg(config, tokenizer) is None, "the head trains"
    shutil.copytree(folder / "model", tmp_path / "trained")
    weights = load_file(tmp_path / "trained" / "model.safetensors")
    seg = json.loads((folder / "model" / "config.json").read_text())["seg_token_id"]
    weights["vlm.lm_head.weight"][seg] *= 1.5
    save_file(weights, tmp_path / "trained" / "model.safetensors", {"format": "pt"})
    config = copy.deepcopy(plan.config)
    config.model.path = str(tmp_path / "trained")
    assert frozen_seg(config, tokenizer) is None, "it was learnt"


@pytest.mark.parametrize(
    ("values", "unread"),
    [
        ({"model.exclude_modules": "q_proj"}, "model.exclude_modules:"),
        ({"model.lora_adapter_path": "adapter"}, "model.lora_adapter_path:"),
        ({"model.lora.type": "dora", "model.lora.dropout": 0.1}, "model.lora.type:"),
    ],
)
def test_settings_of_adapters_without_effect_are_refused(folder: Path, values: dict[str, Any], unread: str) -> None:
    with pytest.raises(ConfigError, match=f"^{unread} not read for R-Sa2VA; .*model.lora.dropout"):
        _check(folder, **values)


@pytest.mark.parametrize(("rank", "embeddings"), [(4, True), (0, False)])
def test_memory_is_planned_for_what_trains(folder: Path, rank: int, embeddings: bool) -> None:
    values = {"model.lora_rank": rank, "masks.train_embeddings": str(embeddings).lower()}
    planned = _check(folder, **values).needs.host
    model, _ = build_r_sa2va("qwen2_5_vl")
    choose_trained(model, rank > 0, embeddings)
    adapters = Shapes.of(model.config).adapters(rank)
    trained = adapters + sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    total = adapters + sum(parameter.numel() for parameter in model.parameters())
    assert planned["optimiser"] == 2 * planned["gradients"] == 8 * trained and planned["weights"] == 4 * total
    assert trained < (0.3 if rank else 0.9) * total


OTHER_SIZE = box_rle((0, 0, 9, 9), Size(32, 64))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda masks: masks[1:], r"train.parquet row 3 \(id tiny-sft-.*: \d masks but \d \[SEG\] in its responses"),
        (lambda masks: [OTHER_SIZE] * len(masks), r"train.parquet row 3 .*masks\[0\].size=\[64, 32\]"),
    ],
)
def test_masks_that_do_not_fit_are_named(folder: Path, tmp_path: Path, change: Any, message: str) -> None:
    rows = list(sft_rows("sft", 12, 0))
    rows[3] = replace(rows[3], masks=change(rows[3].masks))
    write_sft(rows, tmp_path / "train.parquet")
    with pytest.raises(ConfigError, match=message):
        _check(folder, **{"data.train_files": tmp_path / "train.parquet"})


def test_data_without_masks_are_refused(folder: Path, tmp_path: Path) -> None:
    write_tiny_data(tmp_path, train=8, val=4)
    with pytest.raises(ConfigError, match=r"train_files have no \[SEG\] with a mask"):
        _check(folder, **{"data.train_files": tmp_path / "train.parquet"})
