"""Which questions a run is validated on, and that they are scored as `vgr_rl.evaluate score` does."""

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from scripts.bench.benchmark_files import (
    treebench_predictions,
    treebench_rows,
    vrt_features,
    write_jsonl,
    write_tfrecord,
    write_tsv,
)
from tests.benchmarks.test_samples import rows as sample_rows
from vgr_rl.benchmarks.predictions import Prediction
from vgr_rl.benchmarks.suite import score
from vgr_rl.data.schema import write_samples
from vgr_rl.errors import ConfigError
from vgr_rl.grounding import ResizeRule, Size, box_rle
from vgr_rl.segment.server import MaskReply, MaskRequest
from vgr_rl.training.validation import as_row, check_best_metric, check_validation, load_validations, read_responses
from vgr_rl.training.validation_benchmarks import MaskValidation


def picture() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (80, 50), "red").save(stream, "png")
    return stream.getvalue()


PNG = picture()
RULE = ResizeRule(28, 28 * 28, 2**20)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_tsv(tmp_path / "TreeBench.tsv", treebench_rows(PNG))


def config(benchmarks: Any, **settings: Any) -> DictConfig:
    trainer = {"test_freq": 5, "save_freq": 5, "val_before_train": False, **settings.pop("trainer", {})}
    usual = {"seed": 0, "system_prompt_file": None, "best_metric": None, "best_mode": "max"}
    own = {
        "data": {"val_files": settings.pop("val_files", "val.parquet")},
        "trainer": trainer,
        "model": {"path": settings.pop("model", "x"), "prefill": "<think>"},
        "segmenter": {"model": settings.pop("sam2", None)},
    }
    return OmegaConf.create({"validation": {**usual, "benchmarks": benchmarks, **settings}, **own})


def detail(prediction: dict[str, Any]) -> str:
    """Return what the reward manager writes about a response."""
    text = f"<think>{prediction['response']}"
    return json.dumps({"id": str(prediction["index"]), "response": text, "length": 8, "image_size": [2000, 1500]})


def test_scores_are_those_of_the_command(data: Path, tmp_path: Path) -> None:
    (validation,) = load_validations(config({"treebench": {"data": str(data)}}))
    given = treebench_predictions(treebench_rows(PNG))
    responses = read_responses(list(map(detail, given)), 9, "orig_px", RULE, "<think>")
    result = validation.score(responses, "model")
    same = write_jsonl(tmp_path / "model.jsonl", [prediction | {"truncated": False} for prediction in given])
    assert result == score("treebench", data, same).result
    metrics = validation.metrics(result)
    assert metrics["val/treebench/overall"] == pytest.approx(200 / 405) and metrics["val/treebench/missing"] == 0
    assert metrics["val/treebench/accuracy/Perception/Attributes"] == pytest.approx(18 / 29)
    assert metrics["val/treebench/miou"] == result["miou"] and metrics["val/treebench/truncated_share"] == 0


def test_boxes_are_in_pixels_that_the_model_saw(data: Path) -> None:
    prediction = {"index": 1, "response": "<box>[0,0,5,5]</box></think><answer>A</answer>"}
    (response,) = read_responses([detail(prediction)], 8, "model_px", RULE, "<think>").values()
    assert as_row(response) == {
        "key": "1",
        "response": prediction["response"],
        "model_size": [1176, 868],
        "truncated": True,
    }


def test_a_part_is_fixed_by_the_seed_and_what_is_missing_is_wrong(data: Path) -> None:
    def keys(seed: int) -> list[str]:
        (validation,) = load_validations(config({"treebench": {"data": str(data), "items": 40}}, seed=seed))
        assert validation.describe() == "treebench (40 of 405 questions)"
        return [item.key for item in validation.questions]

    assert keys(0) == keys(0) and len(set(keys(0))) == 40 and keys(0) != keys(1) and keys(0) == sorted(keys(0), key=int)
    (validation,) = load_validations(config({"treebench": {"data": str(data), "items": 40}}))
    result = validation.score({}, "nothing")
    assert result["overall"] == 0 and validation.metrics(result)["val/treebench/missing"] == 40


def test_questions_are_asked_with_their_images_and_without_their_answers(data: Path, tmp_path: Path) -> None:
    (tmp_path / "system.txt").write_text("Be brief.\n")
    write_samples(sample_rows(), tmp_path / "mine.parquet")
    both = {"treebench": {"data": str(data), "items": 2}, "samples": {"data": str(tmp_path / "mine.parquet")}}
    tree, samples = load_validations(config(both, system_prompt_file=str(tmp_path / "system.txt")))
    for row in (*tree.rows(), *samples.rows()):
        assert row.prompt[0] == {"role": "system", "content": "Be brief."}
        assert row.sample.answer == "" and row.sample.targets == () and len(row.images) == 1
    usual, own = (validation.system_prompt for validation in load_validations(config(both)))
    assert usual is not None and usual.startswith("You answer questions about an image.") and own is None


class Halves:
    """Takes the left half of each box for its mask, and fails for boxes that begin at `broken`."""

    def __init__(self, broken: float = -1) -> None:
        self.asked: list[MaskRequest] = []
        self.broken = broken

    async def masks(self, request: MaskRequest) -> MaskReply:
        self.asked.append(request)
        if any(box[0] == self.broken for box in request.prompts):
            return MaskReply(None, "out of memory")
        boxes = [(x1, y1, (x1 + x2) / 2, y2) for x1, y1, x2, y2 in request.prompts]
        return MaskReply(tuple(box_rle(box, Size(80, 50)) for box in boxes))


def vrt_validation(folder: Path, **settings: Any) -> MaskValidation:
    """Return three questions whose reasoning points at (0, 0, 40, 50) and whose answer at (40, 0, 80, 50)."""
    masks = [box_rle((0, 0, 40, 50), Size(80, 50)), box_rle((40, 0, 80, 50), Size(80, 50))]
    rows = [vrt_features(f"q{number}", masks, [1], [2], ["#loc"], PNG) for number in range(3)]
    data = write_tfrecord(folder / "vrt_eval.tfrecord", rows)
    (validation,) = load_validations(config({"vrt_bench": {"data": str(data), **settings}}, sam2="x"))
    assert isinstance(validation, MaskValidation)
    return validation


def said(*boxes_of: str) -> dict[str, Prediction]:
    rows = [
        {"id": f"q{number}", "response": f"<think>{boxes}", "length": 8, "image_size": [80, 50]}
        for number, boxes in enumerate(boxes_of)
    ]
    return read_responses(list(map(json.dumps, rows)), 9, "norm1000", RULE, "<think>")


def test_the_masks_of_boxes_are_scored_as_by_the_command(tmp_path: Path) -> None:
    validation, segmenter = vrt_validation(tmp_path), Halves()
    for row in validation.rows():
        assert row.prompt[0]["content"].startswith("You answer questions about an image by pointing at objects")
        assert row.sample.targets == () and len(row.images) == 1 and row.sample.image_size == Size(80, 50)
    half = "<box>[0,0,1000,1000]</box></think><answer><box>[500,0,1000,1000]</box></answer>"
    responses = said(half, "nothing</think><answer>[SEG]</answer>")
    masked, failed = asyncio.run(validation.with_masks(responses, segmenter, 7, 1))
    assert failed == [] and [request.step for request in segmenter.asked] == [7, 7]
    assert segmenter.asked[0].prompts == ((0, 0, 80, 50), (40, 0, 80, 50)) and segmenter.asked[1].prompts == ()
    assert masked["q0"].response == "<think>[SEG]</think><answer>[SEG]</answer>" and masked["q1"].masks == ()
    result = validation.score(masked, "model")
    rows = write_jsonl(tmp_path / "model.jsonl", list(map(as_row, masked.values())))
    assert result == score("vrt_bench", tmp_path / "vrt_eval.tfrecord", rows).result
    metrics = validation.metrics(result)
    assert metrics["val/vrt_bench/reasoning/miou"] == pytest.approx(1 / 3)
    assert metrics["val/vrt_bench/loc/answer/miou"] == pytest.approx(1 / 6) and metrics["val/vrt_bench/missing"] == 1
    assert metrics.keys() == set(validation.metric_names())


def test_r_sa2va_brings_its_masks(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "r_sa2va"}')
    masks = [box_rle((0, 0, 40, 50), Size(80, 50)), box_rle((40, 0, 60, 50), Size(80, 50))]
    vrt_validation(tmp_path)
    asked = config({"vrt_bench": {"data": str(tmp_path)}}, model=str(tmp_path / "model"))
    assert check_validation(asked) == []
    (validation,) = load_validations(asked)
    assert "segmentation mask" in next(validation.rows()).prompt[0]["content"]
    text = "<think>a [SEG]</think><answer>[SEG]</answer>"
    row = {"id": "q0", "response": text, "length": 8, "image_size": [80, 50], "pred_masks": masks}
    responses = read_responses([json.dumps(row)], 9, "orig_px", RULE, "")
    metrics = validation.metrics(validation.score(responses, "model"))
    assert metrics["val/vrt_bench/reasoning/miou"] == pytest.approx(1 / 3)
    assert metrics["val/vrt_bench/answer/miou"] == pytest.approx(1 / 6)


def test_a_segmenter_that_fails_is_no_prediction_without_masks(tmp_path: Path) -> None:
    validation = vrt_validation(tmp_path, items=2)
    assert validation.describe() == "vrt_bench (2 of 3 questions)"
    keys = [question.key for question in validation.questions]
    responses = {key: Prediction(key, f"<box>[{at},0,40,50]</box>") for at, key in enumerate(keys)}
    masked, failed = asyncio.run(validation.with_masks(responses, Halves(broken=1), 1, 4))
    assert failed == [f"{keys[1]}: out of memory"] and masked[keys[1]].masks is None and masked[keys[0]].masks


@pytest.mark.parametrize(
    ("benchmarks", "message"),
    [
        ({"vrtbench": {"data": "x"}}, "benchmarks.vrtbench: there is no such benchmark; expected some of treebench"),
        ({"vrt_bench": {"data": "no.tfrecord"}}, "validation.benchmarks.vrt_bench: data=no.tfrecord: no such file"),
        ({"vstar": {"items": 3}}, r"vstar={'items': 3} but expected {data: FILE} and, of items, convention, "),
        ({"vstar": {"data": "x", "limit": 3}}, "but expected {data: FILE}"),
        ({"vstar": {"data": "no.tsv"}}, "validation.benchmarks.vstar: data=no.tsv: no such file"),
        ({"treebench": {"data": "DATA", "items": 406}}, r"treebench.items=406 but expected 1 to 405, or null for all"),
        ({"treebench": {"data": "DATA", "convention": "ours"}}, "convention=ours but expected one of authors"),
    ],
)  # fmt: skip
def test_a_benchmark_that_cannot_be_used_names_its_key(benchmarks: Any, message: str, data: Path) -> None:
    for settings in benchmarks.values():
        settings |= {"data": str(data)} if settings.get("data") == "DATA" else {}
    with pytest.raises(ConfigError, match=message):
        load_validations(config(benchmarks))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trainer": {"test_freq": -1}}, "validation.benchmarks=['treebench'] but trainer.test_freq=-1"),
        ({"best_metric": "val-core/a", "trainer": {"test_freq": 0}}, "best_metric=val-core/a but trainer.test_freq=0"),
        ({"best_metric": "val-core/a", "trainer": {"save_freq": -1}}, "but trainer.save_freq=-1"),
        ({"best_mode": "most"}, "validation.best_mode=most but expected max or min"),
    ],
)  # fmt: skip
def test_settings_that_contradict_each_other_are_named(settings: dict[str, Any], message: str) -> None:
    assert any(message in problem for problem in check_validation(config({"treebench": {"data": "x"}}, **settings)))
    assert check_validation(config({"treebench": {"data": "x"}}, best_metric="val/treebench/overall")) == []
    (problem,) = check_validation(config({"vrt_bench": {"data": "x"}}))
    assert problem.startswith("validation.benchmarks.vrt_bench: segmenter.model=null")
    assert check_validation(config({"vrt_bench": {"data": "x"}}, sam2="x")) == []
    (problem,) = check_validation(config({}, val_files=[]))
    assert problem.startswith("trainer.test_freq=5, trainer.val_before_train=False but data.val_files and validation.")
    assert check_validation(config({}, val_files=[], trainer={"test_freq": -1})) == []


def test_the_best_checkpoint_is_chosen_by_a_number_that_there_is(data: Path) -> None:
    (validation,) = validations = load_validations(config({"treebench": {"data": str(data)}}))
    given = validation.metrics(validation.score({}, "nothing"))
    assert given.keys() < set(validation.metric_names())  # no response, no share of truncated ones
    assert all(check_best_metric(name, validations) == [] for name in (*given, "val-core/tiny/reward/mean@1", None))
    (problem,) = check_best_metric("val/treebench/mious", validations)
    assert problem.startswith(
        "validation.best_metric=val/treebench/mious but validation.benchmarks gives only val/tree"
    )
    assert "val/treebench/miou, " in problem and "val/treebench/accuracy/Perception/OCR" in problem
    assert check_best_metric("val/vstar/overall", []) == [
        "validation.best_metric=val/vstar/overall but validation.benchmarks is empty"
    ]
