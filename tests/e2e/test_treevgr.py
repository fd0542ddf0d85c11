"""TreeVGR from its sources to a row of the benchmark table, by the commands of recipes/treevgr, on the tiny model."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.treevgr_sources import VSTAR_FILES, write_treebench, write_vgr158k, write_visdrone, write_vstar
from vgr_rl.config.resolvers import asset_path
from vgr_rl.data.schema import read_samples

pytestmark = pytest.mark.e2e

BASE = str(asset_path("base_qwen2_5_vl"))
DATA = Path("runs/data/treevgr")  # where the recipe's configuration looks
SMALL = ("data.max_prompt_length=400", "data.max_response_length=96", "actor_rollout_ref.rollout.max_model_len=512")
BATCH, GROUP, STEPS = 8, 4, 2


def command(folder: Path, entry: str, *arguments: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-m", f"vgr_rl.{entry}", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the recipe's data are prepared from the sources."""
    folder = tmp_path_factory.mktemp("treevgr")
    for name in ("vgr", "vstar"):
        (folder / name).mkdir()
    write_vgr158k(folder / "vgr", rows=32)
    write_vstar(folder / "vstar", rows=5)
    write_visdrone(folder / "VisDrone2019-DET-train", pictures=8)
    write_visdrone(folder / "VisDrone2019-DET-val", pictures=4)
    for source, arguments in {
        "vgr158k": ("--input", "vgr/VGR-158K.parquet", "--model", BASE, "--out", f"{DATA}/sft.parquet"),
        **{
            f"vstar {name}": ("--input", f"vstar/{name}.json", "--out", f"{DATA}/all/{name}.parquet")
            for name in VSTAR_FILES
        },
        "visdrone": ("--input", "VisDrone2019-DET-train", "--out", f"{DATA}/visdrone.parquet"),
        "visdrone val": ("--input", "VisDrone2019-DET-val", "--split", "val", "--out", f"{DATA}/visdrone_val.parquet"),
        "filter-hard": (
            *("--input", *(f"{DATA}/all/{name}.parquet" for name in VSTAR_FILES), "--model", BASE),
            *("--max-pixels", "4194304", "--max-new-tokens", "96", "--max-prompt-tokens", "400", "--max-pass", "0.9"),
            *("--out", f"{DATA}/vstar.parquet"),
        ),
    }.items():
        command(folder, "prepare", source.partition(" ")[0], *arguments)
    return folder


@pytest.fixture(scope="module")
def cold_start(folder: Path) -> Path:
    command(
        folder, "sft", "recipe=treevgr", "hardware=cpu", f"model.path={BASE}", "run_dir=runs/treevgr/sft",
        "data.train_batch_size=16", "data.max_length=640",
    )  # fmt: skip
    return folder / "runs/treevgr/sft"


@pytest.fixture(scope="module")
def trained(folder: Path, cold_start: Path) -> Path:
    command(
        folder, "main", "recipe=treevgr", "hardware=cpu", "judge=rules", f"model.path={cold_start / 'model'}",
        "run_dir=runs/treevgr/grpo", f"data.train_batch_size={BATCH}", f"actor_rollout_ref.rollout.n={GROUP}",
        "actor_rollout_ref.actor.ppo_mini_batch_size=4", f"trainer.total_training_steps={STEPS}", *SMALL,
        "trainer.logger=[]",
    )  # fmt: skip
    return folder / "runs/treevgr/grpo"


def test_the_sources_become_the_recipes_data(folder: Path) -> None:
    kept = [row.sample for row in read_samples(folder / DATA / "vstar.parquet")]
    decisions = lines(folder / DATA / "vstar.filter/decisions.jsonl")
    assert {decision["id"] for decision in decisions if decision["kept"]} == {sample.id for sample in kept}
    assert len(decisions) == 20 and all(decision["why"] for decision in decisions)
    assert 0 < len(kept) < 20  # the tiny model knows some of them and not others
    counted = [row.sample for row in read_samples(folder / DATA / "visdrone.parquet")]
    assert [len(sample.targets) for sample in counted] == [5, 6, 7, 8, 5, 6, 7, 8]


def test_the_cold_start_trains_on_traces_without_a_validation_file(cold_start: Path) -> None:
    steps = [line["data"]["train/loss"] for line in lines(cold_start / "metrics.jsonl") if "train/loss" in line["data"]]
    assert len(steps) == 2 and all(loss > 0 for loss in steps)
    assert (cold_start / "model/model.safetensors").is_file()


def test_grpo_sees_both_sources_with_their_boxes_and_the_model_enters_the_table(folder: Path, trained: Path) -> None:
    rows = [row for row in lines(trained / "samples.jsonl") if row["split"] == "train"]
    assert len(rows) == STEPS * BATCH * GROUP
    assert {row["data_source"] for row in rows} == {"vstar", "visdrone"}
    assert all(row["targets_orig_px"] for row in rows)
    data = write_treebench(folder)
    command(
        folder, "evaluate", "benchmark=treebench", f"data={data}", f"model={trained / 'model'}", "limit=20",
        "out=runs/treevgr/treebench", "max_new_tokens=64",
    )  # fmt: skip
    command(folder, "evaluate", "table", "treebench", "runs/treevgr/treebench/result.json", "--format", "md")
    result = json.loads((folder / "runs/treevgr/treebench/result.json").read_text())
    assert result["extra"]["n"] == 20 and 0 <= result["overall"] <= 100
