"""Everything about running a benchmark but the engine; tests/e2e/test_benchmark_run.py has that."""

from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from scripts.bench.benchmark_files import treebench_rows, write_jsonl, write_tsv
from vgr_rl.benchmarks.run import BenchmarkRun, written_size
from vgr_rl.benchmarks.suite import score
from vgr_rl.evaluate import benchmark_runs
from vgr_rl.grounding import Frame, ResizeRule, Size

TASK = BenchmarkRun("treebench", "model", "TreeBench.tsv", Path("out"))
DEFAULTS = OmegaConf.load(Path(__file__).parents[2] / "vgr_rl/config/evaluation/evaluate.yaml")
del DEFAULTS["hydra"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"benchmark": "cv_bench"}, "benchmark=cv_bench but a model can be run on treebench, vstar, "),
        ({"convention": "ours"}, "convention=ours but expected one of authors, vlmevalkit"),
        ({"sam2": "x"}, "sam2=x but benchmark=treebench: masks are asked for by vrt_bench"),
        ({"limit": 0}, "limit=0 but it must be at least 1"),
    ],
)
def test_bad_settings_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TASK, **changes)  # type: ignore[arg-type]


def test_the_configuration_becomes_one_run_a_model(tmp_path: Path) -> None:
    (tmp_path / "system.txt").write_text("Be brief.\n")
    given = {"benchmark": "V-Star", "data": "craigwu/vstar_bench", "model": ["a", "b"], "out": ["x", "y"]}
    config = OmegaConf.merge(DEFAULTS, given, {"system_prompt_file": str(tmp_path / "system.txt"), "batch": 3})
    first, second = benchmark_runs(config)
    assert (first.model, first.out, second.model, second.out) == ("a", Path("x"), "b", Path("y"))
    assert (first.benchmark, first.system_prompt, first.concurrency) == ("vstar", "Be brief.", 3)
    assert "<box>" in benchmark_runs(OmegaConf.merge(config, {"system_prompt_file": None}))[0].system_prompt
    with pytest.raises(ValueError, match="system_prompt_file=none does not exist"):
        benchmark_runs(OmegaConf.merge(config, {"system_prompt_file": "none"}))


def test_results_are_named_after_their_folder(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    rows = treebench_rows(b"picture")[:1]
    data = write_tsv(tmp_path / "TreeBench.tsv", rows)
    predictions = write_jsonl(tmp_path / "mine/predictions.jsonl", [{"index": 0, "response": "A"}])
    assert score("treebench", data, predictions).result["extra"]["name"] == "mine"


@pytest.mark.parametrize(("frame", "size"), [("model_px", (112, 56)), ("norm1000", (1000, 1000)), ("orig_px", None)])
def test_predictions_say_in_which_pixels_their_boxes_are(frame: Frame, size: tuple[int, int] | None) -> None:
    assert written_size(frame, ResizeRule(28, 28 * 28, 2**20), Size(100, 60)) == size
