"""A parquet of ours as a benchmark."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from scripts.bench.benchmark_files import write_jsonl
from tests.chat_server import ChatServer
from vgr_rl.benchmarks.command import main
from vgr_rl.benchmarks.run import BenchmarkRun, run
from vgr_rl.benchmarks.samples import SAMPLES
from vgr_rl.benchmarks.suite import score
from vgr_rl.data.schema import Row, image_path, read_samples, write_samples
from vgr_rl.data.tiny_world import rl_rows

ANSWERS = ("A", " the red  one. ", "4", "")


def rows() -> list[Row]:
    """Return a letter, a text, a number and a sample without an answer, of two sources."""
    kinds = (("choice", "A"), ("open", "Red one"), ("open", "four"), ("none", ""))
    return [
        replace(
            row,
            sample=replace(
                row.sample, answer_kind=kind, answer=answer, data_source="b" if kind == "none" else "a",
                options=row.sample.options if kind == "choice" else (),
            ),
        )
        for row, (kind, answer) in zip(rl_rows("heldout", 4, 0), kinds, strict=True)
    ]  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_samples(rows(), tmp_path / "mine.parquet")
    return tmp_path / "mine.parquet"


def predictions(folder: Path) -> Path:
    """Write answers, the first with its true boxes, in pixels of an image twice as large."""
    written = []
    for row, answer in zip(rows(), ANSWERS, strict=True):
        boxes = "".join(
            f"<box>[{','.join(str(round(2 * side)) for side in box)}]</box>" for box in row.sample.target_boxes
        )
        size = {"model_size": [2 * side for side in row.sample.image_size]}
        written.append({"key": row.sample.id, "response": f"{boxes}</think><answer>{answer}</answer>", **size})
    return write_jsonl(folder / "model.jsonl", written)


def test_answers_are_graded_as_by_the_reward_and_boxes_as_of_treebench(data: Path, tmp_path: Path) -> None:
    result = score("samples", data, predictions(tmp_path)).result
    assert result["overall"] == 1.0 and result["miou"] == 1.0
    scores = {
        name: (row["n"], row["correct"], row["accuracy"], row["miou"]) for name, row in result["per_category"].items()
    }
    assert scores == {"a": (3, 3, 1.0, 1.0), "b": (1, 0, None, 1.0)}
    assert result["extra"]["precision_iou"] == 1.0 and result["extra"]["intervals"]["accuracy"] == [1.0, 1.0]
    assert result["extra"]["intervals"]["per_category"]["b"]["accuracy"] is None
    assert result["extra"]["whole_benchmark"] and result["extra"]["truncated_share"] == 0.0


def test_a_missing_prediction_is_wrong(data: Path, tmp_path: Path) -> None:
    lines = predictions(tmp_path).read_text().splitlines(keepends=True)
    (tmp_path / "one.jsonl").write_text(lines[0])
    result = score("samples", data, tmp_path / "one.jsonl").result
    assert result["overall"] == pytest.approx(1 / 3) and result["miou"] == 0.25


def test_commands_take_it(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--data", str(data), "--predictions", str(predictions(tmp_path)), "--json", str(tmp_path / "r.json")]
    assert main(["score", "samples", *arguments, "--figure", str(tmp_path / "iou.png")]) == 0
    assert "Samples, model, convention authors" in capsys.readouterr().out
    assert main(["table", "samples", str(tmp_path / "r.json")]) == 0
    assert "| **model** | 100.0 | 100.0 |" in capsys.readouterr().out
    assert main(["score", "samples", "--data", "no.parquet", *arguments[2:]]) == 2
    assert "data=no.parquet: no such file; give a parquet of samples" in capsys.readouterr().err


def test_bad_rows_are_named(tmp_path: Path) -> None:
    first, second = rows()[:2]
    write_samples([first, replace(second, sample=replace(second.sample, id=first.sample.id))], tmp_path / "bad.parquet")
    with pytest.raises(ValueError, match=f"id='{first.sample.id}' is also the id of row 0"):
        SAMPLES.load(tmp_path / "bad.parquet")


def test_the_prompt_is_the_samples_own(data: Path) -> None:
    (item, *_), (row, *_) = SAMPLES.load(data), read_samples(data)
    assert SAMPLES.messages(item, "authors", None) == row.prompt
    system, *turns = SAMPLES.messages(item, "authors", "Be brief.")
    assert system == {"role": "system", "content": "Be brief."}
    assert turns == [message for message in row.prompt if message["role"] != "system"]
    assert item.encoded_images() == row.images and item.stored_size() == row.sample.image_size


def test_every_image_has_its_size(data: Path, tmp_path: Path) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "second.png")
    row = rows()[0]
    prompt = [{"role": "user", "content": f"<image>{row.prompt[0]['content']}"}]
    two = replace(row, prompt=prompt, images=[*row.images, image_path("second.png")])
    write_samples([two, rows()[1]], tmp_path / "two.parquet")
    assert [item.stored_sizes() for item in SAMPLES.load(tmp_path / "two.parquet")] == [
        [(64, 64), (30, 20)],
        [(64, 64)],
    ]


def test_a_model_behind_a_server_answers_it(data: Path, tmp_path: Path) -> None:
    with ChatServer(r"(\d)", lambda number, body: [("<answer>A</answer>", "stop")]).in_thread() as server:
        url = f"http://127.0.0.1:{server.server_port}/v1"
        task = BenchmarkRun("samples", "gpt", str(data), tmp_path / "out", url=url, frame="norm1000", prefill="")
        result = run(task, Quiet())
    assert result["overall"] == pytest.approx(1 / 3) and result["extra"]["n"] == 4
    assert json.loads((tmp_path / "out/settings.json").read_text())["instruction"] is None
    asked = {
        part["text"] for body in server.bodies for part in body["messages"][-1]["content"] if part["type"] == "text"
    }
    assert {message["content"].replace("<image>", "") for row in rows() for message in row.prompt} == asked


class Quiet:
    def start(self, mode: str, total: int, done: int) -> None:
        pass

    def advance(self, mode: str) -> None:
        pass
