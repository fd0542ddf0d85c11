"""A run with two workers that is interrupted and goes on with one, validated on benchmarks in every step."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.e2e.runs import CORRELATION, TRAIN_SAMPLES, expected_ids, ids_by_step, lines, metrics, train
from tests.e2e.tiny_benchmarks import treebench, vrt_bench, vstar
from vgr_rl.benchmarks.suite import score
from vgr_rl.monitoring.metric_names import meaning
from vgr_rl.prepare import main as prepare
from vgr_rl.tiny.segmenter import build_sam2
from vgr_rl.training.best_checkpoint import read_best
from vgr_rl.training.merge import merge_checkpoint

pytestmark = pytest.mark.e2e

BEST = "val/treebench/miou"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    counts = ["--train", str(TRAIN_SAMPLES), "--val", "4", "--heldout", "4", "--sft", "4", "--sft-val", "4"]
    prepare(["tiny", "--out", str(folder), *counts])
    treebench(folder / "TreeBench.tsv", 12)
    vstar(folder, 6)
    vrt_bench(folder / "vrt_eval.tfrecord", 3)
    build_sam2().save_pretrained(folder / "sam2")
    return folder


@pytest.fixture(scope="module")
def interrupted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run of five steps, three of them by two workers and two by one."""
    run_dir = tmp_path_factory.mktemp("runs") / "b"
    overrides = (
        *("actor_rollout_ref.actor.use_kl_loss=true", "data.max_prompt_length=400"),
        *("actor_rollout_ref.actor.optim.lr=1e-3", "trainer.save_freq=3"),
        *("trainer.max_actor_ckpt_to_keep=1", "trainer.test_freq=1"),
        f"+validation.benchmarks.treebench={{data: {data}/TreeBench.tsv}}",
        *(f"+validation.benchmarks.vrt_bench={{data: {data}}}", f"segmenter.model={data}/sam2"),
        *(f"+validation.benchmarks.vstar={{data: {data}, items: 4}}", f"validation.best_metric={BEST}"),
    )
    for workers, steps in ((2, 3), (1, 5)):
        last = (f"trainer.n_gpus_per_node={workers}", f"trainer.total_training_steps={steps}")
        result = train(run_dir, data, *overrides, *last)
        assert result.returncode == 0, result.stderr[-4000:]
    return run_dir


def test_it_sees_the_batches_of_an_uninterrupted_one(interrupted: Path) -> None:
    assert [line["step"] for line in lines(interrupted / "metrics.jsonl")] == [1, 2, 3, 4, 5]
    assert ids_by_step(interrupted) == expected_ids(5)
    assert min(metrics(interrupted, CORRELATION)) > 0.99
    assert len(metrics(interrupted, "actor/kl_loss")) == 5


def test_benchmarks_are_scored_as_by_the_command(interrupted: Path, data: Path) -> None:
    for step, line in enumerate(lines(interrupted / "metrics.jsonl"), start=1):
        answers = interrupted / "validation" / "treebench" / f"step_{step}.jsonl"
        result = score("treebench", data / "TreeBench.tsv", answers).result
        logged = {name: line["data"][f"val/treebench/{name}"] for name in ("overall", "miou", "missing")}
        assert logged == {"overall": result["overall"], "miou": result["miou"], "missing": 0}
        assert line["data"]["val/treebench/boxes_per_answer"] == result["extra"]["boxes_per_answer"]
        assert any(name.startswith("val-core/tiny_world/") for name in line["data"])
        assert [name for name in line["data"] if meaning(name) is None] == []
    asked = [{row["key"] for row in lines(file)} for file in (interrupted / "validation" / "vstar").glob("*.jsonl")]
    assert len(asked) == 5 and all(keys == asked[0] for keys in asked) and len(asked[0]) == 4


def test_boxes_are_scored_by_the_masks_that_sam2_makes_of_them(interrupted: Path, data: Path) -> None:
    for step, line in enumerate(lines(interrupted / "metrics.jsonl"), start=1):
        answers = interrupted / "validation" / "vrt_bench" / f"step_{step}.jsonl"
        result = score("vrt_bench", data / "vrt_eval.tfrecord", answers).result
        for section in ("reasoning", "answer"):
            assert line["data"][f"val/vrt_bench/{section}/miou"] == result[section]["miou"]
        assert line["data"]["val/vrt_bench/missing"] == 0
        assert all(row["response"].count("[SEG]") == len(row["pred_masks"]) for row in lines(answers))


def test_the_best_checkpoint_stays(interrupted: Path, tmp_path: Path) -> None:
    values, folder = metrics(interrupted, BEST), interrupted / "checkpoints"
    assert len(set(values)) > 1, "the policy did not change"
    best = read_best(folder)
    assert best is not None and (best.step, best.value) == (values.index(max(values)) + 1, max(values))
    assert [path.name for path in folder.glob("best/global_step_*")] == [f"global_step_{best.step}"]
    workers = 2 if best.step <= 3 else 1
    assert len(list(folder.glob(f"best/*/actor/model_world_size_{workers}_rank_*.pt"))) == workers
    assert (folder / "global_step_5/actor").is_dir()
    merge_checkpoint(folder / "best" / f"global_step_{best.step}", tmp_path / "best")
    merged, last = (load_file(path / "model.safetensors") for path in (tmp_path / "best", interrupted / "model"))
    assert all(torch.equal(merged[name], last[name]) for name in last) == (best.step == 5)
