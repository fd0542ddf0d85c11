"""The commands of recipes/vrt/README.md pass the checks of a start."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from tests.training.segment_fixtures import write_mask_data, write_segmenter
from tests.training.sft_fixtures import sft_config
from vgr_rl import prepare
from vgr_rl.config import entry
from vgr_rl.data import segment_commands, vrt_commands
from vgr_rl.data.filters import commands as filter_commands
from vgr_rl.data.schema import write_samples
from vgr_rl.data.tiny_masks import rl_rows
from vgr_rl.errors import ConfigError
from vgr_rl.training import launch
from vgr_rl.training.plan import make_plan
from vgr_rl.training.sft_preflight import check

ROOT = Path(__file__).parents[2]
README = (ROOT / "recipes" / "vrt" / "README.md").read_text()


def commands(entry: str) -> list[str]:
    return re.findall(rf"^python -m vgr_rl\.{entry} ([^#\n]+)", README, re.MULTILINE)


@pytest.mark.parametrize("line", commands("prepare"))
def test_the_data_commands_parse(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = []
    for module in (segment_commands, vrt_commands, filter_commands):
        for name in [name for name in vars(module) if name.startswith(("make_", "filter_"))]:
            monkeypatch.setattr(module, name, parsed.append)
    prepare.main(shlex.split(line))
    assert len(parsed) == 1


@pytest.mark.slow
@pytest.mark.parametrize("line", commands("sft"))
def test_the_cold_starts_pass_their_checks(line: str, tmp_path: Path) -> None:
    write_segmenter(tmp_path / "model", "qwen3_vl")
    write_mask_data(tmp_path, train=64, val=16)
    given = [f"model.path={tmp_path}/model", f"data.train_files={tmp_path}/train.parquet", "data.make=null"]
    given += [f"data.val_files={tmp_path}/val.parquet"] if "tiny" in line else ["hardware=cpu"]
    plan = check(sft_config(*shlex.split(line), *given), tmp_path / "scratch")
    text = "\n".join(plan.lines())
    rank = 32 if "tiny" in line else 128
    assert f"LoRA of rank {rank}" in text and "projector and mask decoder train" in text


def test_the_published_numbers_are_in_the_recipe() -> None:
    config = sft_config("recipe=vrt")
    assert (config.model.lora_rank, config.model.lora_alpha, config.model.lora.dropout) == (128, 256, 0.05)
    optim = config.optim
    assert (optim.lr, list(optim.betas), optim.weight_decay, optim.clip_grad) == (4e-5, [0.9, 0.999], 0.05, 1.0)
    assert (optim.lr_warmup_steps_ratio, optim.lr_scheduler_type, optim.optimizer) == (0.05, "cosine", "AdamW")
    assert (config.data.train_batch_size, config.data.max_length, config.trainer.total_epochs) == (64, 8192, 1)
    masks = config.masks
    assert (masks.bce_weight, masks.dice_weight, masks.points, masks.per_image) == (2.0, 0.5, 12544, 5)


def plan_of(line: str, folder: Path, **replaced: Any) -> dict[str, str]:
    """The plan of a command, with a model and data that are on this disk."""
    write_segmenter(folder / "model", "qwen3_vl")
    write_samples(rl_rows("train", 16, 0), folder / "rl.parquet", "train")
    entry.register()
    with initialize_config_module("vgr_rl.config", version_base=None):
        config = compose("main", overrides=[*shlex.split(line), "dry_run=true"])
    config.model.path, config.data.train_files = str(folder / "model"), str(folder / "rl.parquet")
    config.data.val_files, config.data.make = [], None
    for key, value in replaced.items():
        OmegaConf.update(config, key.replace("__", "."), value)
    launch._derive(config)
    assert config.actor_rollout_ref.model.external_lib == "vgr_rl.training.segment_policy"
    return dict(make_plan(config).facts)


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for line in commands("main") if "boxes" not in line])  # see test_mask_server.py
def test_rl_passes_its_checks(line: str, tmp_path: Path) -> None:
    facts = plan_of(line, tmp_path)
    assert facts["reward"].startswith("1 seg_format + 1 mask_iou")
    assert facts["step"].startswith("16 prompts x 4 rollouts = 64 sequences; 1 update(s) of 64; no KL")
    if "best_rollout_weight" in line:
        assert (
            "projector by 1 x the mask loss of each group's best rollout; embeddings, vision tower and SAM2 are"
            in (facts["trains"])
        )
    else:
        assert "vision tower, projector and SAM2 are frozen" in facts["trains"]


def test_rl_refuses_what_masks_do_not_go_with(tmp_path: Path) -> None:
    given = {"model__freeze": ["vision"], "algorithm__filter_groups": {"enable": True}}
    with pytest.raises(ConfigError, match=r"model\.freeze=\['vision'\] but (.|\n)*filter_groups\.enable=true but"):
        plan_of("recipe=vrt/tiny run_dir=unused", tmp_path, **given)
