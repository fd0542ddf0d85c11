"""The configuration, the plan and the checks before anything is started."""

import copy
import dataclasses
import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_module
from hydra.errors import ConfigCompositionException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from tests.e2e.tiny_benchmarks import treebench
from vgr_rl.config import recipes, resolvers, search_path
from vgr_rl.data.schema import Row, image_path, read_samples, write_samples
from vgr_rl.errors import ConfigError
from vgr_rl.prepare import main as prepare
from vgr_rl.training import launch, preflight
from vgr_rl.training.checkpoint_manifest import write_manifest
from vgr_rl.training.data_on_demand import make_missing
from vgr_rl.training.judge_preflight import check_judge
from vgr_rl.training.model_spec import ModelSpec
from vgr_rl.training.plan import make_plan


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    counts = ["--train", "64", "--val", "8", "--heldout", "8", "--sft", "8", "--sft-val", "8"]
    prepare(["tiny", "--out", str(folder / "data"), *counts])
    prepare(["tiny-model", "--out", str(folder / "model")])
    return folder


@functools.cache
def compose_config(*overrides: str) -> DictConfig:
    """A composed configuration, to be read only: composing verl's takes a second, so every test shares it."""
    recipes.register()
    resolvers.register()
    search_path.register()
    with initialize_config_module("vgr_rl.config", version_base="1.3"):
        return compose("main", overrides=list(overrides), return_hydra_config=False)


def tiny_config(tiny: Path, *overrides: str) -> DictConfig:
    config = copy.deepcopy(compose_config("run_dir=unused"))
    files = (f"data.train_files={tiny}/data/train.parquet", f"data.val_files={tiny}/data/val.parquet")
    for override in (f"model.path={tiny}/model", *files, *overrides):
        key, _, value = override.partition("=")
        OmegaConf.update(config, key.lstrip("+"), yaml.safe_load(value), force_add=key.startswith("+"))
    launch._derive(config)
    return config


def problems(config: DictConfig) -> str:
    with pytest.raises(ConfigError) as raised:
        make_plan(config)
    return str(raised.value)


def test_our_keys_come_first_and_every_verl_key_is_reachable() -> None:
    config = compose_config("actor_rollout_ref.actor.clip_ratio_high=0.28")
    assert list(config)[:5] == ["run_dir", "dry_run", "seed", "seed_rollouts", "log_every_nth_group"]
    assert config.actor_rollout_ref.actor.clip_ratio_high == 0.28
    assert config.trainer.v1.trainer_mode == "evidence"


@pytest.mark.slow
@pytest.mark.parametrize("hardware", ["cpu", "1gpu", "8gpu", "8+8gpu", "2x8gpu"])
def test_every_hardware_composes_without_changing_the_method(hardware: str) -> None:
    config, reference = compose_config(f"hardware={hardware}"), compose_config("run_dir=unused")
    assert config.hardware.name == hardware
    assert config.trainer.device == config.hardware.platform
    for key in ("algorithm", "reward.terms", "data.train_batch_size", "actor_rollout_ref.actor.optim.lr"):
        assert OmegaConf.select(config, key) == OmegaConf.select(reference, key)


def test_every_model_sets_the_same_keys() -> None:
    files = list((Path(launch.__file__).parents[1] / "config" / "model").glob("*.yaml"))
    assert len(files) >= 4
    assert len({tuple(OmegaConf.load(file)) for file in files}) == 1


def test_wrong_names_are_hydra_errors_that_list_what_exists() -> None:
    with pytest.raises((MissingConfigException, ConfigCompositionException), match="tiny"):
        compose_config("recipe=tyni")
    with pytest.raises(ConfigCompositionException, match="guards.windw"):
        compose_config("guards.windw=3")


def test_what_an_earlier_run_froze_trains_unless_it_is_frozen_again(tiny: Path, tmp_path: Path) -> None:
    from verl.utils.config import omega_conf_to_dataclass

    shutil.copytree(tiny / "model", tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"frozen_components": ["vision"]}))
    for frozen in ([], ["head"]):
        config = tiny_config(tiny, f"model.path={tmp_path}/model", f"model.freeze={frozen}")
        assert omega_conf_to_dataclass(config.actor_rollout_ref.model).hf_config.frozen_components == frozen


def test_the_plan_says_what_will_happen(tiny: Path) -> None:
    facts = dict(make_plan(tiny_config(tiny, "model.freeze=[vision]")).facts)
    assert "boxes in model_px" in facts["frame"]
    assert "16 prompts x 8 rollouts = 128 sequences" in facts["step"]
    assert "frozen" in facts["trains"] and "longest" in facts["tokens"]
    assert facts["reward"] == "1 accuracy + 1 format + 1 dual_iou"
    config = tiny_config(tiny, "reward.terms.dual_iou.params.recall=false", "reward.terms.format.weight=0.5")
    assert dict(make_plan(config).facts)["reward"] == "1 accuracy + 0.5 format + 1 dual_iou(recall=False)"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.path=/nowhere", "model.path=/nowhere but there is no config.json"),
        ("pictures.rollouts=-1", "pictures.rollouts=-1 but expected a whole number"),
        ("model.frame=pixels", "model.frame=pixels but expected auto"),
        ("data.train_files=/nowhere.parquet", "data.train_files"),
        ("data.max_prompt_length=40", "data.max_prompt_length=40 but sample tiny-"),
        ("data.train_batch_size=128", "data.train_batch_size=128 but data.train_files hold 64 samples"),
        ("actor_rollout_ref.actor.ppo_mini_batch_size=5", "ppo_mini_batch_size=5 (prompts) must divide"),
        ("actor_rollout_ref.rollout.n=1", "rollout.n=1 but GRPO compares"),
        ("actor_rollout_ref.rollout.max_model_len=200", "max_model_len=200 but data.max_prompt_length"),
        (
            "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=48",
            "ppo_micro_batch_size_per_gpu=48 must divide the 128",
        ),
        ("trainer.total_training_steps=abc", "trainer.total_training_steps=abc but a number is expected"),
        ("actor_rollout_ref.actor.optim.lr=fast", "actor_rollout_ref.actor.optim.lr=fast but a number is expected"),
        ("model.freeze=[visoin]", "model.freeze=['visoin'] but expected some, not all, of vision"),
        ("model.freeze=[vision,language,head]", "expected some, not all"),
        ("trainer.n_gpus_per_node=3", "cannot be split over"),
        ("simulate.nodes=2", "simulate.* is for a plan alone: set dry_run=true"),
        ("reward.terms.dual_iou.use=dual_uoi", "dual_uoi"),
        ("+reward.terms.dual_iou.params.recal=false", "recal"),
        ("+reward.by_source.vstar.format=null", "reward.by_source.vstar: the data have no such data_source"),
        ("+reward.by_source.tiny_world.fromat=null", "reward.by_source.tiny_world.fromat is null"),
    ],
)
def test_bad_input_names_the_knob(tiny: Path, override: str, message: str) -> None:
    assert message in problems(tiny_config(tiny, override))


def test_a_run_directory_points_on_to_its_model(tiny: Path) -> None:
    assert f"did you mean {tiny}/model?" in problems(tiny_config(tiny, f"model.path={tiny}"))


def test_every_image_of_a_row_counts_and_one_that_no_processor_takes_is_named(tiny: Path, tmp_path: Path) -> None:
    (row, *_) = read_samples(tiny / "data" / "train.parquet")
    for name, size in (("wide", (128, 64)), ("line", (201, 1))):
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    question = {"role": "user", "content": row.prompt[0]["content"] + "<image>"}
    for name in ("wide", "line"):
        sample = dataclasses.replace(row.sample, id=name)
        write_samples([Row(sample, [question], [*row.images, image_path(f"{name}.png")])], tmp_path / f"{name}.parquet")
    files = f"data.train_files=[{tmp_path}/wide.parquet]"
    text = problems(tiny_config(tiny, files, "data.max_prompt_length=40", f"data.val_files={tmp_path}/line.parquet"))
    assert "sample wide needs" in text and "(48 of them for its image)" in text  # 16 + 8 x 4
    assert "line.parquet: sample line: image size 201x1 but the longer side may be at most 200 times" in text


def test_a_mistyped_file_is_an_error_and_makes_nothing(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = tiny_config(tiny, "data.train_files=nope.parquet")
    make_missing(config.data.make, launch.data_files(config))
    assert list(tmp_path.iterdir()) == []
    text = problems(config)
    assert "nope.parquet" in text and "hold 0 samples" not in text


def test_a_term_without_weight_counts_once(tiny: Path) -> None:
    config = tiny_config(tiny, "+reward.terms.mine={use: format}")
    assert "+ 1 mine" in dict(make_plan(config).facts)["reward"]


def test_benchmarks_to_validate_on_are_checked_and_shown(tiny: Path, tmp_path: Path) -> None:
    data = {"data": str(treebench(tmp_path / "TreeBench.tsv", 6)), "items": 4}
    settings = (f"+validation.benchmarks.treebench={json.dumps(data)}", "trainer.test_freq=5")
    longer = ("data.max_prompt_length=400", "validation.best_metric=val/treebench/miou")
    fact = dict(make_plan(tiny_config(tiny, *settings, *longer)).facts)["validates"]
    best = "checkpoints/best has the best val/treebench/miou (max)"
    assert fact == f"treebench (4 of 6 questions) every 5 steps; {best}"
    message = problems(tiny_config(tiny, *settings, "validation.best_metric=val/vstar/miou"))
    assert "validation.benchmarks.treebench: data.max_prompt_length=128 but sample " in message
    assert "best_metric=val/vstar/miou but validation.benchmarks gives only val/treebench/overall, " in message


def test_all_problems_are_reported_at_once(tiny: Path) -> None:
    text = problems(tiny_config(tiny, "data.train_batch_size=128", "actor_rollout_ref.rollout.n=1"))
    assert "rollout.n=1" in text and "train_batch_size=128" in text


def test_a_reward_of_ones_own_is_one_override(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(
        "from rewards.score import Score\n\n"
        "class Short:\n"
        "    def __init__(self, limit: int): self.limit = limit\n"
        "    def __call__(self, trace, sample):\n"
        "        return Score(float(len(trace.text) < self.limit), {'short': 1.0})\n"
    )
    monkeypatch.chdir(tmp_path)
    config = tiny_config(tiny, "+reward.terms.mine={use: 'mine.py:Short', weight: 0.5, params: {limit: 9}}")
    assert "+ 0.5 mine(limit=9)" in dict(make_plan(config).facts)["reward"]
    assert config.reward.terms.mine.use == f"{tmp_path}/mine.py:Short"


def test_gpus_that_are_not_there_are_an_error_naming_the_hardware(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    config = compose_config("hardware=8gpu")
    if torch.cuda.device_count() >= 8:
        pytest.skip("this machine has 8 GPUs")
    assert "hardware=8gpu needs 8 CUDA GPUs" in preflight.check_accelerators(config)[0]
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert preflight.check_accelerators(config) == []


def test_a_checkpoint_of_another_model_is_not_resumed(tiny: Path, tmp_path: Path) -> None:
    config = tiny_config(tiny, f"run_dir={tmp_path}")
    folder = tmp_path / "checkpoints" / "global_step_4" / "actor" / "huggingface"
    folder.mkdir(parents=True)
    other = json.loads((tiny / "model" / "config.json").read_text())
    other["text_config"]["hidden_size"] = 999
    (folder / "config.json").write_text(json.dumps(other))
    (folder.parent / "fsdp_config.json").write_text('{"world_size": 1}')
    write_manifest(folder.parents[1])
    assert "another architecture than model.path" in problems(config)
    assert "hidden_size 999 against 128" in problems(config)


def test_no_prompt_in_flight_is_no_rollout() -> None:
    assert "prompts_in_flight=0 but at least 1" in preflight.check_values(compose_config("prompts_in_flight=0"))[0]


def test_a_mask_loss_needs_a_weight_and_a_model_with_masks(tiny: Path) -> None:
    for given in ("-0.5", "null", "nan", "much"):
        config = tiny_config(tiny, f"masks.best_rollout_weight={given if given != 'nan' else '.nan'}")
        assert f"masks.best_rollout_weight={None if given == 'null' else given} but" in problems(config)
    config = tiny_config(tiny, "masks.best_rollout_weight=0.5")
    assert f"masks.best_rollout_weight=0.5 but model.path={tiny}/model is no R-Sa2VA" in problems(config)


def test_a_text_model_is_refused(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}))
    with pytest.raises(ConfigError, match="model.path="):
        ModelSpec.load(str(tmp_path))


@pytest.mark.slow
def test_the_command_line_ends_with_2_and_one_message_and_writes_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vgr_rl.main", "model.path=/nowhere", "data.make=null", "run_dir=out"]
    result = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert result.returncode == 2, result.stderr
    assert "error: model.path=/nowhere" in result.stderr and "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_only_keys_that_the_run_reads_have_to_be_on_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "planted")
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    config = compose_config("judge=endpoint", "judge.api_key_env=JUDGE_KEY", "trainer.logger=[wandb]")
    assert launch.secrets(config) == ["WANDB_API_KEY"]
    monkeypatch.setenv("JUDGE_KEY", "planted")
    assert launch.secrets(config) == ["WANDB_API_KEY", "JUDGE_KEY"]
    assert launch.secrets(compose_config("trainer.logger=[tensorboard]")) == []


def judge_config(**knobs: object) -> DictConfig:
    judge = yaml.safe_load((Path(launch.__file__).parents[1] / "config" / "judge" / "endpoint.yaml").read_text())
    given = {"urls": ["http://127.0.0.1:9/v1"], "model": "judge", **knobs}
    return OmegaConf.create({"judge": judge | given, "guards": {"stage_timeout_s": 600}})


def test_a_judge_that_cannot_work_is_found_before_anything_is_started(tmp_path: Path) -> None:
    assert check_judge(judge_config()) == []
    assert check_judge(OmegaConf.create({"judge": {"name": "rules"}})) == []
    (unset,) = check_judge(judge_config(model=None))
    assert "judge.model" in unset
    (prompt,) = check_judge(judge_config(prompt_file=str(tmp_path / "none.yaml")))
    assert "judge.prompt_file" in prompt
    (slow,) = check_judge(judge_config(deadline_s=600))
    assert "judge.deadline_s=600 must be below guards.stage_timeout_s=600" in slow


def test_a_pool_that_cannot_work_is_found_before_anything_is_started(tiny: Path, tmp_path: Path) -> None:
    prepare(["tiny-judge", "--out", str(tmp_path / "judge")])
    config = compose_config("judge=pool", f"judge.model={tmp_path}/judge")
    assert check_judge(config) == [] and launch.gpus_needed(config) == 2

    def found(**changes: object) -> str:
        changed = copy.deepcopy(config)
        for key, value in changes.items():
            OmegaConf.update(changed, key.replace("__", "."), value)
        return "; ".join(check_judge(changed))

    assert "judge.model=''" in found(judge__model=None)
    assert "no config.json in that folder" in found(judge__model=str(tmp_path))
    assert "hardware=cpu has none for a judge" in found(reward__reward_model__nnodes=0)
    parallel = found(reward__reward_model__rollout__tensor_model_parallel_size=2)
    assert "tensor_model_parallel_size=2 but must divide the judge's 1 GPUs" in parallel
    (tmp_path / "judge" / "chat_template.jinja").unlink()
    assert "has no chat template" in found()


def test_masks_of_boxes_need_a_segmenter(tiny: Path) -> None:
    config = tiny_config(tiny)
    config.reward.terms = {"dual_mask_iou": {"params": {"source": "box_masks"}}}
    assert "source=box_masks but segmenter.model=null" in problems(config)
    config.segmenter.model = "sam2"
    make_plan(config)
    assert launch.gpus_needed(config) == 1
    shares = {(3, 0.5): 2, (3, 0.6): 3, (4, 0.25): 1, (5, 1 / 3): 2, (2, 1): 2}
    for (servers, gpus), needed in shares.items():
        config.segmenter.update(servers=servers, gpus=gpus)
        assert launch.gpus_needed(config) == 1 + needed
    config.segmenter.update(servers=0, gpus=2, model=str(tiny / "absent"))
    found = problems(config)
    assert "segmenter.servers=0" in found and "segmenter.gpus=2" in found
    assert f"segmenter.model={tiny}/absent but there is no config.json in that folder" in found


def test_the_plan_refuses_a_judge_that_does_not_fit(tiny: Path) -> None:
    config = tiny_config(tiny)
    config.judge = judge_config(retries=-1).judge
    assert "judge.retries=-1" in problems(config)


def test_a_judge_that_does_not_answer_stops_the_start() -> None:
    config = judge_config(start_timeout_s=0.5, cache_dir=None)
    with pytest.raises(ConfigError, match="http://127.0.0.1:9/v1.*judge.start_timeout_s=0.5"):
        launch.check_judge(config)
