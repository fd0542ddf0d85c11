import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from scripts.bench.benchmark_files import (
    treebench_predictions,
    treebench_rows,
    vrt_features,
    write_jsonl,
    write_tfrecord,
    write_tsv,
)
from vgr_rl import evaluate
from vgr_rl.benchmarks.command import COMMANDS, main
from vgr_rl.benchmarks.suite import NAMES, benchmark_name, find_data
from vgr_rl.benchmarks.tables import build, read_result, render
from vgr_rl.grounding import Size, box_rle

PUBLISHED = Path(__file__).parents[2] / "vgr_rl/benchmarks/published"
ROWS = treebench_rows(b"picture")
PREDICTIONS = treebench_predictions(ROWS)


def files(folder: Path, rows: Any = ROWS, predictions: Any = PREDICTIONS) -> list[str]:
    data, given = write_tsv(folder / "TreeBench.tsv", rows), write_jsonl(folder / "model.jsonl", predictions)
    return ["--data", str(data), "--predictions", str(given)]


def test_score_table_and_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, png, svg = tmp_path / "out.json", tmp_path / "iou.png", tmp_path / "iou.svg"
    figures = ["--figure", str(png), "--figure", str(svg)]
    assert main(["score", "TreeBench", *files(tmp_path), "--json", str(out), *figures]) == 0
    shown = capsys.readouterr()
    assert shown.err == "" and re.search(r"overall +│ 405 │ +200 │ +49.4 │", shown.out)
    result = json.loads(out.read_text())
    assert result["overall"] == pytest.approx(200 / 405) and result["extra"]["name"] == "model"
    assert Image.open(png).size[0] > 1000 and "<svg" in svg.read_text()

    assert main(["table", "treebench", str(out)]) == 0
    table = capsys.readouterr().out
    assert (
        "| TreeVGR-7B | 50.4 | 44.0 | 65.5 | 53.8 | 82.6 | 68.8 | 63.3 | 22.4 | 36.8 | 61.0 | 69.0 | 45.5 | – |"
        in table
    )
    ours = next(line for line in table.splitlines() if line.startswith("| **model** |"))
    assert ours.startswith("| **model** | 49.4 |") and " | 62.1 | 53.8 | 82.6 | 62.5 | 61.8 | 22.4 | 35.1 |" in ours
    assert main(["table", "treebench", str(out), "--format", "json"]) == 0
    rows = {row["model"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert rows["o3"]["values"][:2] == [54.8, None] and rows["model"]["values"][0] == pytest.approx(100 * 200 / 405)
    assert main(["table", "vstar", str(out)]) == 2
    assert "model is a result of treebench, not of vstar" in capsys.readouterr().err


def test_latex_escapes_names_and_has_one_cell_for_each_column(tmp_path: Path) -> None:
    path = tmp_path / "my_model.jsonl"
    write_jsonl(path, PREDICTIONS)
    out = tmp_path / "out.json"
    assert main(["score", "treebench", *files(tmp_path)[:2], "--predictions", str(path), "--json", str(out)]) == 0
    lines = render(build("treebench", [read_result(out)]), "tex").splitlines()
    assert r"my\_model & 49.4 & " in "\n".join(lines)
    columns = len(re.search(r"\{(lr+)\}", lines[1])[1])  # type: ignore[index]
    assert {line.count(" & ") for line in lines if line.startswith(("Model", "o3", "my"))} == {columns - 1}
    assert lines[-4] == r"\midrule" and lines[-3].startswith(r"my\_model & ") and lines.count(r"\midrule") == 2
    assert sum(map(int, re.findall(r"multicolumn\{(\d+)\}", lines[3]))) == columns - 1


def test_what_is_wrong_is_said_and_the_rest_is_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [*PREDICTIONS[20:], PREDICTIONS[30], {"index": "none", "response": ""}, {"index": 0}]
    out = tmp_path / "out.json"
    assert main(["score", "treebench", *files(tmp_path, ROWS, given), "--json", str(out)]) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert "model.jsonl has 1 bad rows, which do not count: line 388: response=None must be text" in error
    assert "has 1 rows of questions that --data does not have: line 387: 'none'" in error
    assert "has 1 rows whose question an earlier row answers, which do not count: line 386: '30'" in error
    assert "has 20 questions without a prediction, which count as wrong: 0 1 2 3 4 5 6 7 8 9 … and 10 more" in error
    assert json.loads(out.read_text())["extra"]["missing"] == 20
    assert "[1] 20 questions without a prediction" in render(build("treebench", [read_result(out)]), "md")


def test_a_part_of_the_benchmark_has_to_be_meant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    part = files(tmp_path, ROWS[:40], PREDICTIONS[:40])
    assert main(["score", "treebench", *part]) == 1
    assert "is not the published benchmark (--partial: " in capsys.readouterr().err
    out = tmp_path / "out.json"
    assert main(["score", "treebench", *part, "--partial", "--json", str(out)]) == 0
    assert capsys.readouterr().err == ""
    assert "[1] not with the published counts (n = 40)" in render(build("treebench", [read_result(out)]), "md")


def test_errors_end_it_before_anything_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, half = tmp_path / "out.json", tmp_path / "half.json"
    half.write_text('{"extra": {"benchmark": "treebench"}}')
    usual = files(tmp_path)
    for arguments, message in (
        (["score", "treebank", *usual], "error: there is no benchmark treebank; there are treebench, vstar, "),
        (
            ["score", "treebench", "--data", "none.tsv", *usual[2:]],
            "error: data=none.tsv: no such file; give TreeBench",
        ),
        (["score", "treebench", *usual, "--figure", "iou.jpg"], "error: --figure=iou.jpg: the name must end in one of"),
        (["table", "treebench", str(out)], "out.json cannot be read"),
        (["table", "treebench", usual[3]], "model.jsonl cannot be read"),
        (["table", "treebench", str(half)], "half.json is no result; make one with"),
    ):
        assert main([*arguments, *(["--json", str(out)] if arguments[0] == "score" else [])]) == 2
        assert message in capsys.readouterr().err and not out.exists()


def test_vrt_bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mask = box_rle((0, 0, 5, 5), Size(10, 10))
    data = write_tfrecord(tmp_path / "vrt_eval.tfrecord", [vrt_features("s", [mask], [1], [1], ["#loc"], b"jpeg")])
    row = {"key": "s", "response": "[SEG]<answer>[SEG]</answer>", "pred_masks": [mask, mask]}
    out = tmp_path / "out.json"
    common = ["--data", str(data.parent), "--predictions", str(write_jsonl(tmp_path / "sft.jsonl", [row]))]
    assert main(["score", "VRT-Bench", *common, "--partial", "--json", str(out)]) == 0
    assert re.search(r"#loc +│ 1 │ +100.0 │", capsys.readouterr().out)
    assert main(["table", "vrt_bench", str(out)]) == 0
    table = capsys.readouterr().out
    assert "| R-Sa2VA-Qwen3VL-4B-SFT+RL | 67.0 | 86.7 | – | – | – | 62.1 |" in table
    assert "| **sft** [1] | 100.0 | 100.0 | 100.0 | 100.0 | 100.0 | 100.0 |" in table
    assert main(["score", "VRT-Bench", *common, "--partial", "--figure", "a.png"]) == 2
    assert "VRT-Bench, sft has no true boxes" in capsys.readouterr().err


def test_the_hub_is_asked_for_what_is_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="data=nobody/TreeBench: no such file, and not to be had from the hub: "):
        find_data("treebench", "nobody/TreeBench")
    with pytest.raises(ValueError, match="no such file; give TreeBench.tsv, or the hub id HaochenWang/TreeBench"):
        find_data("treebench", "a/TreeBench.tsv")


def test_names_are_forgiving() -> None:
    assert [benchmark_name(name) for name in ("V-Star", "HR-Bench-8K", "MME-RealWorld-Lite")] == [
        "vstar",
        "hrbench8k",
        "mme_realworld_lite",
    ]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "samples"])
def test_published_numbers_have_a_source_and_fit_their_columns(name: str) -> None:
    layout = yaml.safe_load((PUBLISHED / f"{name}.yaml").read_text())
    assert "arXiv" in layout["source"] and layout["rows"]
    for row in layout["rows"]:
        assert len(row["values"]) <= len(layout["columns"])
        assert all(value is None or 0 < value < 100 for value in row["values"])


def test_the_command_needs_neither_torch_nor_vllm_nor_ray() -> None:
    heavy = ("torch", "vllm", "ray", "verl", "transformers", "matplotlib")
    code = f"import vgr_rl.benchmarks.command, sys; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_the_entry_hands_over(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluate", "score", "treebench", "--data", "x", "--predictions", "y"])
    with pytest.raises(SystemExit, match="2"):
        evaluate.main()
    assert "data=x: no such file" in capsys.readouterr().err
    configuration = yaml.safe_load((PUBLISHED.parents[1] / "config/evaluation/evaluate.yaml").read_text())
    assert all(f"evaluate {command} BENCH " in configuration["hydra"]["help"]["template"] for command in COMMANDS)


def test_the_page_names_every_benchmark_field_and_count() -> None:
    page = (Path(__file__).parents[2] / "docs/benchmarks.md").read_text()
    fields = ("index", "key", "response", "model_size", "pred_masks", "truncated", "precision_iou", "all_cycles_right")
    assert [name for name in (*NAMES, *fields) if f"`{name}`" not in page] == []


def test_the_help_shows_benchmarks_and_keys_with_their_comments() -> None:
    command = [sys.executable, "-m", "vgr_rl.evaluate", "--help"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert [name for name in NAMES if name not in text.partition("== Keys ==")[0]] == []
    assert "\nurl: null  # answer the benchmark with an OpenAI-compatible server" in text
    assert "\n  terms: null  # {name: {use, weight, params}, ...}" in text and "hydra:" not in text
