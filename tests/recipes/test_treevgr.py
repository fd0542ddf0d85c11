"""Every command and override that recipes/treevgr/README.md shows composes and passes the checks of a start."""

import copy
import functools
import json
import re
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from vgr_rl.config import recipes, resolvers, search_path
from vgr_rl.data.schema import SftRow, image_path, write_samples, write_sft
from vgr_rl.data.treevgr import to_row
from vgr_rl.grounding.geometry import ResizeRule
from vgr_rl.prepare import main as prepare
from vgr_rl.tiny.model import Family, build_model, save_model
from vgr_rl.training import launch
from vgr_rl.training.plan import make_plan
from vgr_rl.training.sft_preflight import check

ROOT = Path(recipes.__file__).parents[2]
README = (ROOT / "recipes" / "treevgr" / "README.md").read_text()
GRPO = "judge.urls=[http://judge:8000/v1]"
# The released processors: patch size, smallest and largest area.
GEOMETRY: dict[Family, tuple[int, int, int]] = {
    "qwen2_5_vl": (14, 56 * 56, 16384 * 28 * 28),
    "qwen3_vl": (16, 256 * 256, 16384 * 32 * 32),
}


def _table(stage: str) -> list[str]:
    """The overrides of the README's tables for a stage; the ablations are GRPO's."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in README.splitlines() if line[:1] == "|"]
    variants = [row[2].strip("`") for row in cells if len(row) == 3 and row[1] == stage]
    ablations = [row[1].strip("`") for row in cells if len(row) == 6 and row[1].startswith("`")]
    return variants + (ablations if stage == "grpo" else [])


def _commands(entry: str) -> list[str]:
    return re.findall(rf"^python -m vgr_rl\.{entry} ([^#\n]+)", README, re.MULTILINE)


@functools.cache
def _groups(entry: str, *choices: str) -> DictConfig:
    recipes.register()
    resolvers.register()
    search_path.register()
    module = "vgr_rl.config" if entry == "main" else "vgr_rl.config.sft"
    with initialize_config_module(module, version_base="1.3"):
        return compose(entry, overrides=list(choices))


def _compose(entry: str, *overrides: str) -> DictConfig:
    """The configuration of the command line; composing verl's takes long, so each choice of groups is composed once."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    groups = [o.input_line for o in parsed if o.key_or_group in ("recipe", "model", "hardware", "judge")]
    config = copy.deepcopy(_groups(entry, *groups))
    for override in parsed:
        if override.input_line not in groups:
            OmegaConf.update(config, override.key_or_group, override.value())  # unknown keys are errors
    return config


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models with the released processors' geometry, and data with a VisDrone image of the largest size."""
    folder = tmp_path_factory.mktemp("treevgr")
    for family, (patch, least, most) in GEOMETRY.items():
        save_model(build_model(family), family, folder / family)
        file = folder / family / "processor_config.json"
        config = json.loads(file.read_text())
        config["image_processor"] |= {"patch_size": patch, "size": {"shortest_edge": least, "longest_edge": most}}
        file.write_text(json.dumps(config))
    Image.new("L", (2000, 1500)).save(folder / "image.jpg")
    target = {"bbox": [10, 20, 400, 600], "label": "car", "name": "car"}
    raw = {"images": ["image.jpg"], "problem": "<image>\nColour?", "answer": "red", "target_instances": [target]}
    write_samples((to_row(raw, f"row-{index}", folder) for index in range(512)), folder / "rl.parquet")
    chat = [{"role": "user", "content": "<image>Colour?"}, {"role": "assistant", "content": "<think>red</think>"}]
    write_sft([SftRow("", chat, [image_path("image.jpg")])] * 256, folder / "sft.parquet")
    return folder


def _plan(files: Path, *overrides: str) -> dict[str, str]:
    """The plan that GRPO prints, with models and data that are on this disk."""
    config = _compose("main", *overrides, "dry_run=true")
    family = "qwen3_vl" if "Qwen3" in config.model.path else "qwen2_5_vl"
    config.model.path, config.data.val_files = str(files / family), []
    config.data.train_files = [str(files / "rl.parquet")]
    launch._derive(config)
    return dict(make_plan(config).facts)


def test_the_readme_shows_both_stages_and_every_ablation_of_the_paper() -> None:
    assert len(_commands("sft")) == 1 and len(_commands("main")) == 2
    assert len(_table("grpo")) >= 11 and len(_table("sft")) >= 2


def test_the_plan_has_the_numbers_of_the_paper(files: Path) -> None:
    facts = _plan(files, "recipe=treevgr", GRPO)
    assert facts["reward"] == "1 accuracy + 1 format + 1 dual_iou"
    assert facts["step"].startswith(
        "512 prompts x 8 rollouts = 4096 sequences; 2 update(s) of 2048; KL loss 0.01 (low_"
    )
    assert facts["frame"].startswith("boxes in model_px; images resized to multiples of 28 px, 3,136 to 4,194,304 px")
    assert _plan(files, "recipe=treevgr", GRPO, "model=qwen3_vl_8b")["frame"].startswith("boxes in norm1000")


@pytest.mark.parametrize("line", _commands("prepare"))
def test_the_data_commands_have_options_that_exist(line: str, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is not there is our error, a text; an unknown option is argparse's, the number 2."""
    monkeypatch.chdir(files)
    with pytest.raises(SystemExit) as ended:
        prepare(shlex.split(re.sub(r"Qwen/\S+", str(files / "qwen2_5_vl"), line)))
    assert isinstance(ended.value.code, str) and "error: " in ended.value.code


@pytest.mark.slow
@pytest.mark.parametrize("line", [*_commands("main"), *(f"recipe=treevgr '{GRPO}' {row}" for row in _table("grpo"))])
def test_grpo_passes_the_checks(files: Path, line: str) -> None:
    overrides = shlex.split(line.replace("HOST", "judge"))
    if "judge=rules" in overrides:
        overrides.remove(GRPO)
    assert "boxes in" in _plan(files, *overrides)["frame"]


@pytest.mark.slow
@pytest.mark.parametrize("line", [*_commands("sft"), *(f"recipe=treevgr {row}" for row in _table("sft"))])
def test_the_cold_start_passes_the_checks(files: Path, line: str, tmp_path: Path) -> None:
    cluster = ["dry_run=true", "simulate.nodes=1", "simulate.gpus_per_node=8", "simulate.gpu_memory_gib=80"]
    config = _compose("sft", *shlex.split(line), *cluster)
    family = "qwen3_vl" if "Qwen3" in config.model.path else "qwen2_5_vl"
    config.model.path, config.data.train_files = str(files / family), [str(files / "sft.parquet")]
    plan = check(config, tmp_path)
    assert plan.lacks == ()
    assert (plan.processes, plan.total_steps, plan.config.optim.lr_warmup_steps_ratio) == (8, 1, 0.1)
    assert plan.spec.frame == ("norm1000" if family == "qwen3_vl" else "model_px")


def test_the_budget_holds_the_largest_image_that_is_left() -> None:
    """max_prompt_length leaves at least 750 tokens for text, max_model_len both, and a micro-batch a whole sequence."""
    config = _compose("main", "recipe=treevgr", GRPO)
    for patch, least, _ in GEOMETRY.values():
        rule = ResizeRule(2 * patch, least, config.model.max_pixels)
        assert config.data.max_prompt_length - max(rule.image_tokens((w, 4200000 // w)) for w in range(500, 8000)) > 750
    rollout, needed = config.actor_rollout_ref.rollout, config.data.max_prompt_length + config.data.max_response_length
    assert rollout.max_model_len == needed <= config.actor_rollout_ref.actor.ppo_max_token_len_per_gpu
