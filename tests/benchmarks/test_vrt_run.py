"""Samples with masks answered by a tiny R-Sa2VA, and by a server that writes boxes, through a tiny SAM2."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from tests.chat_server import ChatServer
from tests.training.segment_fixtures import write_segmenter
from vgr_rl.benchmarks import vrt_bench
from vgr_rl.benchmarks.run import BenchmarkRun
from vgr_rl.benchmarks.vrt_run import boxes_as_segs, run
from vgr_rl.data.schema import write_samples
from vgr_rl.data.tiny_masks import rl_rows
from vgr_rl.evaluate import benchmark_runs
from vgr_rl.grounding import ImageGeometry, Size, parse_trace
from vgr_rl.tiny.segmenter import build_sam2

GEOMETRY = ImageGeometry(Size(64, 64), Size(64, 64))


class Quiet:
    def start(self, mode: str, total: int, done: int) -> None:
        pass

    def advance(self, mode: str) -> None:
        pass


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vrt") / "heldout.parquet"
    write_samples(rl_rows("heldout", 4, 0), path)
    return path


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def test_samples_are_questions_of_the_benchmark(data: Path) -> None:
    for item, row in zip(vrt_bench.load(data), rl_rows("heldout", 4, 0), strict=True):
        evidence, answer = item.masks["reasoning"], item.masks["answer"]
        assert [*evidence, *answer] == [target.mask_rle for target in row.sample.targets]
        assert item.key == row.sample.id and item.image() == row.images[0]["bytes"]
        assert item.classes == (row.sample.extra["classes"][0],) and len(answer) >= 1


@pytest.mark.slow
def test_a_segmenter_answers_goes_on_and_is_scored(data: Path, tmp_path: Path) -> None:
    write_segmenter(tmp_path / "model")
    task = BenchmarkRun("vrt_bench", str(tmp_path / "model"), str(data), tmp_path / "out", max_new_tokens=4, limit=2)
    run(task, Quiet())
    before = rows(tmp_path / "out")
    result = run(replace(task, limit=None), Quiet())
    assert rows(tmp_path / "out")[:2] == before and len(rows(tmp_path / "out")) == 4
    assert all(len(row["pred_masks"]) == row["response"].count("[SEG]") and row["length"] <= 4 for row in before)
    assert result["extra"]["n"] == 4 and result["extra"]["missing"] == 0
    with pytest.raises(ValueError, match="holds a run with max_new_tokens=4"):
        run(replace(task, max_new_tokens=5), Quiet())
    with pytest.raises(ValueError, match="is an R-Sa2VA, which needs no sam2=x"):
        run(replace(task, sam2="x"), Quiet())


def test_boxes_become_masks_in_their_sections(data: Path, tmp_path: Path) -> None:
    build_sam2().save_pretrained(tmp_path / "sam2")
    box, other = "<box>[100,100,500,500]</box>", "<box>[500,500,900,900]</box>"
    said = f"<think>a {box} and {other}, {box}</think><answer>{box}</answer>"
    with ChatServer(r"(\d)", lambda number, body: [(said, "stop")]).in_thread() as server:
        url = f"http://127.0.0.1:{server.server_port}/v1"
        own: dict[str, Any] = {"frame": "norm1000", "prefill": "", "sam2": str(tmp_path / "sam2")}
        task = BenchmarkRun("vrt_bench", "gpt", str(data), tmp_path / "out", url=url, **own)
        result = run(task, Quiet())
        with pytest.raises(ValueError, match="model=gpt is no R-Sa2VA folder; name the SAM2"):
            run(replace(task, sam2=None), Quiet())
        shutil.rmtree(tmp_path / "sam2")  # nothing is left to do, so nothing is loaded
        assert run(task, Quiet()) == result
    assert result["extra"]["predicted_masks"] == {"reasoning": 8, "answer": 4}
    row = rows(tmp_path / "out")[0]
    assert row["response"] == "<think>a [SEG] and [SEG], </think><answer>[SEG]</answer>" and row["raw"] == said
    first, second, again = row["pred_masks"]
    assert first == again != second and first["size"] == [64, 64]


def test_boxes_in_the_text_are_segs_once_a_section() -> None:
    box = "<box>[1,2,30,40]</box>"
    trace = parse_trace(f"{box} [SEG] {box}</think><answer>{box}{box}</answer> {box}", GEOMETRY, "model_px")
    text, kept = boxes_as_segs(trace)
    assert text == "<think>[SEG]  </think><answer>[SEG]</answer> [SEG]"
    assert [each.span[0] for each in kept] == [trace.boxes[index].span[0] for index in (0, 2, 4)]


def test_instructions_fit_the_model(tmp_path: Path) -> None:
    write_segmenter(tmp_path / "model")
    defaults = OmegaConf.load(Path(vrt_bench.__file__).parents[1] / "config/evaluation/evaluate.yaml")
    del defaults["hydra"]
    given = {"benchmark": "vrt_bench", "data": "a/b", "model": [str(tmp_path / "model"), "Qwen/x"], "out": ["x", "y"]}
    segmenter, boxes = benchmark_runs(OmegaConf.merge(defaults, given))
    assert "mask" in segmenter.system_prompt and "<box>" not in segmenter.system_prompt
    assert "<box>" in boxes.system_prompt
