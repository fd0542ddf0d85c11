"""Assembling shards, folding adapters, and noticing every kind of damage; without processes."""

import json
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.training.segment_fixtures import write_segmenter
from tests.training.sft_fixtures import write_tiny_model
from vgr_rl.errors import ConfigError
from vgr_rl.segment import auto
from vgr_rl.segment.model import RSa2VA
from vgr_rl.tiny.model import Family
from vgr_rl.training import merge
from vgr_rl.training.merge import MergeMismatch, merge_checkpoint
from vgr_rl.training.shards import LoraScale, differing_tensors, fold_adapter


def _checkpoint(folder: Path, family: Family) -> Path:
    """An FSDP checkpoint of one rank, whose tensors are plain."""
    from transformers import AutoModelForImageTextToText

    checkpoint = folder / "global_step_3"
    write_tiny_model(checkpoint / "huggingface", family)
    model = AutoModelForImageTextToText.from_pretrained(checkpoint / "huggingface")
    torch.save(model.state_dict(), checkpoint / "model_world_size_1_rank_0.pt")
    (checkpoint / "huggingface" / "model.safetensors").unlink()
    (checkpoint / "fsdp_config.json").write_text(json.dumps({"world_size": 1}))
    return checkpoint


@pytest.fixture(params=["qwen2_5_vl", "qwen3_vl"])
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return _checkpoint(tmp_path, request.param)


def test_the_merged_folder_loads_and_equals_the_shards(checkpoint: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    report = merge_checkpoint(checkpoint, tmp_path / "out")
    shard = torch.load(checkpoint / "model_world_size_1_rank_0.pt")
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "out")
    assert report.tensors == len(shard) and report.max_log_prob_gap < 1e-4
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}
    torch.testing.assert_close(dict(model.state_dict()), dict(shard), rtol=0, atol=0)
    assert AutoProcessor.from_pretrained(tmp_path / "out").tokenizer.eos_token == "<|im_end|>"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_bfloat16_on_request(tmp_path: Path) -> None:
    report = merge_checkpoint(_checkpoint(tmp_path, "qwen2_5_vl"), tmp_path / "out", dtype="bfloat16")
    assert report.max_log_prob_gap <= merge.LOG_PROB_TOLERANCE
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_missing_step_is_answered_with_those_that_exist(tmp_path: Path) -> None:
    for step in ("global_step_2", "global_step_10/actor"):
        (tmp_path / "run" / "checkpoints" / step).mkdir(parents=True)
    checkpoints = tmp_path / "run" / "checkpoints"
    known = f"{checkpoints} has global_step_2, global_step_10"
    for given in ("checkpoints/global_step_5", "checkpoints/global_step_5/actor", "checkpoints"):
        with pytest.raises(ConfigError, match=re.escape(known)):
            merge_checkpoint(tmp_path / "run" / given, tmp_path / "out")
    with pytest.raises(ConfigError, match=f"run is no checkpoint: {re.escape(known)}"):
        merge_checkpoint(tmp_path / "run", tmp_path / "out")
    with pytest.raises(ConfigError, match="nowhere does not exist: expected a folder checkpoints/global_step_N of a"):
        merge_checkpoint(tmp_path / "nowhere", tmp_path / "out")


@pytest.mark.parametrize("tensor", ["lm_head.weight", "model.visual.patch_embed.proj.weight"])
def test_a_damaged_tensor_is_found_and_nothing_is_left(
    tensor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = _checkpoint(tmp_path, "qwen2_5_vl")
    original = merge._save

    def damaging(state: dict[str, Tensor], *rest: object) -> None:
        damaged = state[tensor].clone()
        damaged.view(-1)[17] += 1e-3
        original({**state, tensor: damaged}, *rest)

    monkeypatch.setattr(merge, "_save", damaging)
    with pytest.raises(MergeMismatch, match=f"{tensor}: differs from rank 0 by up to 0.001"):
        merge_checkpoint(checkpoint, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["global_step_3"]


def test_log_probs_notice_what_tensors_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same weights under another config are another model."""
    checkpoint = _checkpoint(tmp_path, "qwen2_5_vl")
    original = merge._save

    def damaging(state: dict[str, Tensor], source: Path, out: Path, dtype: torch.dtype) -> None:
        original(state, source, out, dtype)
        config = json.loads((out / "config.json").read_text())
        config["text_config"]["rope_parameters"]["rope_theta"] = 1e6
        (out / "config.json").write_text(json.dumps(config))

    monkeypatch.setattr(merge, "_save", damaging)
    with pytest.raises(MergeMismatch, match="log-probs up to"):
        merge_checkpoint(checkpoint, tmp_path / "out")


def test_shapes_names_and_values_are_compared() -> None:
    shard = {"a": torch.ones(2, 3), "b": torch.ones(4)}
    assert differing_tensors({"a": torch.ones(2, 3), "b": torch.ones(4)}, [shard], torch.float32) == []
    assert "b was not saved" in differing_tensors({"a": torch.ones(2, 3)}, [shard], torch.float32)
    assert "c is in no shard" in differing_tensors({**shard, "c": torch.ones(1)}, [shard], torch.float32)
    assert "shape (3,)" in differing_tensors({**shard, "b": torch.ones(3)}, [shard], torch.float32)[0]


def test_an_adapter_is_folded_as_it_acts() -> None:
    torch.manual_seed(0)
    weight, a, b, x = torch.randn(5, 4), torch.randn(2, 4), torch.randn(5, 2), torch.randn(3, 4)
    stem = "base_model.model.layers.0.q_proj"
    state = {
        f"{stem}.base_layer.weight": weight,
        f"{stem}.base_layer.bias": torch.ones(5),
        f"{stem}.lora_A.default.weight": a,
        f"{stem}.lora_B.default.weight": b,
        "base_model.model.norm.weight": torch.ones(4),
    }
    folded = fold_adapter(state, LoraScale(rank=2, alpha=16))
    assert folded.keys() == {"layers.0.q_proj.weight", "layers.0.q_proj.bias", "norm.weight"}
    torch.testing.assert_close(x @ folded["layers.0.q_proj.weight"].T, x @ weight.T + 8 * (x @ a.T) @ b.T)


def _adapted_segmenter(folder: Path) -> Path:
    """A checkpoint as a cold start of R-Sa2VA leaves it: adapters beside the weights."""
    from peft import LoraConfig, get_peft_model

    checkpoint = folder / "global_step_3"
    write_segmenter(checkpoint / "huggingface")
    auto.register()
    model = RSa2VA.from_pretrained(checkpoint / "huggingface")
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=r".*language_model.*_proj"))
    for name, parameter in adapted.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.3)
    torch.save(adapted.state_dict(), checkpoint / "model_world_size_1_rank_0.pt")
    (checkpoint / "huggingface" / "model.safetensors").unlink()
    (checkpoint / "fsdp_config.json").write_text(json.dumps({"world_size": 1}))
    (checkpoint / "lora_train_meta.json").write_text(json.dumps({"r": 4, "lora_alpha": 8}))
    return checkpoint


@pytest.mark.slow
def test_a_segmenter_is_merged_with_its_adapters_and_makes_the_masks_of_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = _adapted_segmenter(tmp_path)
    report = merge_checkpoint(checkpoint, tmp_path / "out")
    assert report.max_mask_gap is not None and report.max_mask_gap < 1e-3 and "masks" in str(report)
    shard = torch.load(checkpoint / "model_world_size_1_rank_0.pt")
    merged = RSa2VA.from_pretrained(tmp_path / "out").state_dict()
    for part in ("projector.0.weight", "sam2.mask_decoder.iou_token.weight"):
        assert torch.equal(merged[part], shard[f"base_model.model.{part}"])
    query = "vlm.model.language_model.layers.0.self_attn.q_proj"
    assert not torch.equal(merged[f"{query}.weight"], shard[f"base_model.model.{query}.base_layer.weight"])
    original = merge._save

    def damaging(state: dict[str, Tensor], *rest: object) -> None:
        original({**state, "projector.2.bias": state["projector.2.bias"] + 1}, *rest)

    monkeypatch.setattr(merge, "_save", damaging)
    with pytest.raises(MergeMismatch, match="masks whose logits"):
        merge_checkpoint(checkpoint, tmp_path / "damaged")


def test_what_cannot_be_merged(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no checkpoint"):
        merge_checkpoint(tmp_path, tmp_path / "out")
    checkpoint = _checkpoint(tmp_path, "qwen2_5_vl")
    (tmp_path / "out").mkdir()
    with pytest.raises(ConfigError, match="--overwrite"):
        merge_checkpoint(checkpoint, tmp_path / "out")
    (checkpoint / "model_world_size_1_rank_0.pt").unlink()
    with pytest.raises(ConfigError, match="lacks model_world_size_1_rank_0.pt"):
        merge_checkpoint(checkpoint, tmp_path / "new")
