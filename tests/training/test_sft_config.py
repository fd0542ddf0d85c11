"""The cold start's configuration and everything it refuses before a training process starts."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.training.sft_fixtures import (
    compose_sft,
    run_overrides,
    sft_config,
    tiny_rows,
    write_tiny_data,
    write_tiny_model,
)
from vgr_rl.config.recipes import list_recipes
from vgr_rl.data.schema import SftRow, write_sft
from vgr_rl.errors import ConfigError
from vgr_rl.training.checkpoint_manifest import write_manifest
from vgr_rl.training.sft_preflight import Plan, check
from vgr_rl.training.sft_rows import SftTable


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assets")
    write_tiny_model(folder / "model")
    write_tiny_data(folder, train=24, val=8)
    return folder


@pytest.fixture
def folder(assets: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(assets, tmp_path / "copy")


def _check(folder: Path, **values: Any) -> Plan:
    before = sorted(folder.rglob("*"))
    plan = check(sft_config(*run_overrides(folder, **values)), folder.parent / "scratch")
    assert sorted(folder.rglob("*")) == before  # nothing written
    return plan


def _keys(config: DictConfig, prefix: str = "") -> set[str]:
    keys = set()
    for key, value in config.items_ex(resolve=False):
        keys |= {f"{prefix}{key}"}
        if isinstance(value, DictConfig):
            keys |= _keys(value, f"{prefix}{key}.")
    return keys


def test_hydra_refuses_a_wrong_key() -> None:
    with pytest.raises(HydraException, match="optim.learning_rate"):
        compose_sft("optim.learning_rate=1")


def test_recipes_set_only_keys_that_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "nothing.yaml").write_text("{}\n")
    names = [name for name in list_recipes("sft") if name != "nothing"]
    assert "tiny" in names
    free = ("data.make.", "hardware.env.")  # arguments of a function, names of variables
    for name in names:
        extra = _keys(sft_config(f"recipe={name}")) - _keys(sft_config("recipe=nothing"))
        assert not {key for key in extra if not key.startswith(free)}, name


@pytest.mark.parametrize("hardware", ["cpu", "1gpu", "8gpu"])
def test_verl_reads_the_configuration(hardware: str, assets: Path) -> None:
    from verl.utils.config import omega_conf_to_dataclass

    config = sft_config(f"hardware={hardware}", *run_overrides(assets))
    optim = omega_conf_to_dataclass(config.optim)
    engine = omega_conf_to_dataclass(config.engine)
    assert (optim.optimizer, optim.lr_scheduler_type, optim.lr_warmup_steps_ratio) == ("AdamW", "cosine", 0.1)
    assert engine.strategy == "fsdp2"
    assert OmegaConf.missing_keys(config) == set()


def test_the_plan_counts_rows_tokens_and_steps(assets: Path) -> None:
    plan = _check(assets, **{"trainer.total_epochs": 3})
    assert (plan.train.rows, plan.total_steps, plan.resume_step, plan.export_dtype) == (24, 18, 0, "float32")
    assert plan.val is not None and plan.val.rows == 8
    assert plan.train.with_prefill == 24
    text = "\n".join(plan.lines())
    assert "24 rows" in text and "18 of 4 rows" in text and "warning" not in text


def test_the_longest_row_is_exact(assets: Path) -> None:
    longest = _check(assets).train.longest
    _check(assets, **{"data.max_length": longest, "data.val_files": "null"})
    with pytest.raises(ConfigError, match=rf"data.max_length={longest - 1} but .*train.parquet row \d+ \(id .*needs"):
        _check(assets, **{"data.max_length": longest - 1, "data.val_files": "null"})


def test_the_plan_warns_of_responses_without_the_prefill(folder: Path) -> None:
    rows = tiny_rows(8)
    for row in rows[:3]:
        row.messages[-1]["content"] = row.messages[-1]["content"].removeprefix("<think>")
    write_sft(rows, folder / "train.parquet")
    assert "3 of 8 responses do not start with data.prefill='<think>'" in "\n".join(_check(folder).lines())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"data.train_batch_size": 64}, "data.train_files hold 24 rows.*data.train_batch_size=64"),
        ({"data.train_batch_size": 12}, "data.val_files hold 8 rows.*data.val_files=null"),
        ({"data.train_batch_size": 5, "trainer.n_gpus_per_node": 2}, "5 is not a multiple of 2 processes"),
        ({"data.train_batch_size": 12, "data.micro_batch_size_per_gpu": 8}, "micro_batch_size_per_gpu=8"),
        ({"trainer.total_training_steps": 100}, "total_training_steps=100.*raise trainer.total_epochs"),
        ({"data.train_files": "nowhere.parquet"}, "data.train_files: nowhere.parquet does not exist"),
        ({"model.path": "./nowhere"}, "model.path=./nowhere"),
        ({"trainer.resume_mode": "sometimes"}, "resume_mode=sometimes"),
        ({"trainer.resume_mode": "resume_path"}, "needs trainer.resume_from_path"),
        ({"trainer.nnodes": 2}, "launch.rendezvous"),
        ({"export_dtype": "int8"}, "export_dtype=int8"),
    ],
)
def test_settings_that_do_not_fit(assets: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _check(assets, **values)


@pytest.mark.skipif(torch.cuda.device_count() >= 8, reason="this machine has the GPUs")
def test_no_gpu_for_8gpu(assets: Path) -> None:
    with pytest.raises(ConfigError, match="hardware=8gpu needs 8 GPUs.*sees 0.*hardware=cpu"):
        check(sft_config("hardware=8gpu", *run_overrides(assets)), assets)


def _no_placeholder(row: SftRow) -> SftRow:
    return SftRow(row.id, [{"role": "user", "content": "What?"}, row.messages[-1]], row.images)


def _damaged_image(row: SftRow) -> SftRow:
    return SftRow(row.id, row.messages, [{"bytes": b"no picture", "path": None}])


def _missing_image(row: SftRow) -> SftRow:
    return SftRow(row.id, row.messages, [{"bytes": None, "path": "absent.png"}])


def _no_response(row: SftRow) -> SftRow:
    return SftRow(row.id, row.messages[:-1], row.images)


def _strange_role(row: SftRow) -> SftRow:
    return SftRow(row.id, [{"role": "human", "content": "x"}, *row.messages], row.images)


def _empty_response(row: SftRow) -> SftRow:
    return SftRow(row.id, [*row.messages[:-1], {"role": "assistant", "content": " "}], row.images)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_no_placeholder, "1 images but 0 <image>"),
        (_damaged_image, r"images\[0\]: not a readable image"),
        (_missing_image, r"images\[0\]: no such file: .*absent.png"),
        (_no_response, "a last assistant's are needed"),
        (_strange_role, r"messages\[0\].role='human'"),
        (_empty_response, r"content=' '"),
    ],
)
def test_a_bad_row_is_named(folder: Path, damage: Callable[[SftRow], SftRow], message: str) -> None:
    rows = tiny_rows(8)
    rows[5] = damage(rows[5])
    write_sft(rows, folder / "train.parquet")
    with pytest.raises(ConfigError, match=rf"train.parquet row 5 \(id {rows[5].id}\).*{message}"):
        _check(folder)


def _write_sharegpt(folder: Path, count: int = 8) -> None:
    """Rows in LLaMA-Factory's layout about pictures of 128 x 72 px, with a box in pixels of the stored picture."""
    Image.new("RGB", (128, 72)).save(folder / "picture.png")
    human = {"from": "human", "value": "<image>What colour?"}
    gpt = {"from": "gpt", "value": "<think><box>[0,9,64,72]</box></think><answer>A</answer>"}
    row = {"images": ["picture.png"], "conversations": [human, gpt], "system": "Think first."}
    (folder / "chats.json").write_text(json.dumps([row] * count))


@pytest.mark.parametrize(
    ("boxes", "written"), [("orig_px", "<box>[0,8,64,64]</box>"), ("model", "<box>[0,9,64,72]</box>")]
)
def test_sharegpt_json_becomes_rows_in_the_frame_of_the_model(folder: Path, boxes: str, written: str) -> None:
    _write_sharegpt(folder)
    plan = _check(folder, **{"data.train_files": folder / "chats.json", "data.json_boxes": boxes})
    (file,) = plan.config.data.train_files
    table = SftTable([file])
    assert len(table) == plan.train.rows == 8
    assert [message["role"] for message in table[0].messages] == ["system", "user", "assistant"]
    assert written in table[0].messages[-1]["content"]
    assert table[0].images[0]["path"] == str((folder / "picture.png").resolve())


def test_a_bad_sharegpt_row_is_named(folder: Path) -> None:
    _write_sharegpt(folder)
    rows = json.loads((folder / "chats.json").read_text())
    rows[3]["conversations"][1]["from"] = "robot"
    (folder / "chats.json").write_text(json.dumps(rows))
    with pytest.raises(ConfigError, match=r"(?s)chats.json.*3.*conversations\[1\].from.*robot"):
        _check(folder, **{"data.train_files": folder / "chats.json"})


def test_a_file_without_the_columns(folder: Path) -> None:
    pq.write_table(pa.table({"prompt": ["x"] * 8}), folder / "train.parquet")
    with pytest.raises(ConfigError, match=r"columns \['prompt'\] but \['messages', 'images'\] are needed"):
        _check(folder)


def test_weights_of_another_architecture(folder: Path) -> None:
    weights = load_file(folder / "model" / "model.safetensors")
    dropped = max(weights, key=lambda name: weights[name].numel())
    save_file({name: weights[name] for name in weights if name != dropped}, folder / "model" / "model.safetensors")
    with pytest.raises(ConfigError, match="its config.json describes a Qwen2_5_VLForConditionalGeneration with"):
        _check(folder)


def test_a_text_model_is_refused(folder: Path) -> None:
    (folder / "model" / "config.json").write_text(json.dumps({"model_type": "qwen2", "architectures": ["Qwen2"]}))
    with pytest.raises(ConfigError, match="model.path="):
        _check(folder)


def _fake_checkpoint(folder: Path, step: int, world_size: int, hidden_size: int | None = None) -> None:
    checkpoint = folder / "run" / "checkpoints" / f"global_step_{step}"
    shutil.copytree(folder / "model", checkpoint / "huggingface")
    config = json.loads((checkpoint / "huggingface" / "config.json").read_text())
    if hidden_size is not None:
        config["text_config"]["hidden_size"] = hidden_size
    (checkpoint / "huggingface" / "config.json").write_text(json.dumps(config))
    (checkpoint / "fsdp_config.json").write_text(json.dumps({"world_size": world_size}))
    write_manifest(checkpoint)


def test_a_run_is_resumed_from_its_newest_checkpoint(folder: Path) -> None:
    _fake_checkpoint(folder, step=3, world_size=1)
    _fake_checkpoint(folder, step=6, world_size=1)
    plan = _check(folder)
    assert plan.resume_step == 6 and plan.config.trainer.resume_from_path.endswith("global_step_6")
    (folder / "run/checkpoints/global_step_6/fsdp_config.json").write_text("{}")
    assert _check(folder).resume_step == 3


@pytest.mark.parametrize(
    ("checkpoint", "values", "message"),
    [
        ({"step": 6, "world_size": 2}, {}, "written by 2 processes but this run has 1.*trainer.n_gpus_per_node=2"),
        ({"step": 6, "world_size": 1, "hidden_size": 64}, {}, "another architecture.*text hidden_size 64 against 128"),
        ({"step": 600, "world_size": 1}, {}, "at step 600 but this run ends at"),
        ({"step": 6, "world_size": 1}, {"trainer.resume_mode": "disable"}, "holds checkpoints"),
    ],
)
def test_a_checkpoint_that_does_not_fit(
    folder: Path, checkpoint: dict[str, int], values: dict[str, Any], message: str
) -> None:
    _fake_checkpoint(folder, **checkpoint)
    with pytest.raises(ConfigError, match=message):
        _check(folder, **values)
