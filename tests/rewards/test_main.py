import io
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rewards.__main__ import main
from rewards.diagnostics import MIN_RESPONSES
from rewards.load import BUILT_IN
from rewards.presets import load_rewards
from rewards.scoring import BadRow, Scored, Spread, score_lines
from tests.rewards.examples import ROW as EXAMPLE

ROW = EXAMPLE | {"prefilled": "<think>"}
TREEVGR = load_rewards("treevgr")


def jsonl(*rows: Any) -> str:
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)


def write(path: Path, *rows: Any) -> str:
    path.write_text(jsonl(*rows), encoding="utf-8")
    return str(path)


def test_good_rows_are_scored_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = ROW | {"id": 8, "response": "</think><answer>A</answer>"}
    out = tmp_path / "out.jsonl"
    assert main(["score", write(tmp_path / "in.jsonl", ROW, "", wrong), "--rewards", "treevgr", "--out", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["id"], row["score"]) for row in rows] == [("7", 3.0), ("8", 1.0)]
    assert list(rows[0]) == ["id", "score", "parts", "status", "trace"]
    shown = capsys.readouterr()
    assert "2 rows scored, 0 bad" in shown.out and "recall_iou" in shown.out and "unreferenced_rate" in shown.out
    assert shown.err.strip() == ""


def test_bad_rows_are_named_and_do_not_stop_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = (ROW | {"answer_kind": "mcq"}, "{", "[" * 100_000, "3")
    source = write(tmp_path / "in.jsonl", *bad, ROW)
    assert main(["score", source, "--rewards", "treevgr", "--out", str(tmp_path / "out.jsonl")]) == 1
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 1
    shown = capsys.readouterr()
    assert f"{source}: line 1: answer_kind='mcq' but expected one of choice, open, none" in shown.err
    assert f"{source}: line 2: not valid JSON" in shown.err
    assert f"{source}: line 3: not valid JSON" in shown.err
    assert f"{source}: line 4: row=3 but expected an object" in shown.err
    assert "1 rows scored, 4 bad" in shown.out


def test_many_bad_rows_are_counted_but_not_all_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", write(tmp_path / "in.jsonl", *(["{"] * 50), ROW), "--rewards", "treevgr"]) == 1
    error = capsys.readouterr().err
    assert error.count("not valid JSON") == 20 and "… and 30 more bad rows" in error


def test_a_failed_score_is_null_counted_and_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.jsonl"
    source = write(tmp_path / "in.jsonl", ROW | {"answer": "Z", "options": ["x", "y"]}, ROW)
    assert main(["score", source, "--rewards", "treevgr", "--out", str(out)]) == 1
    assert [json.loads(line)["score"] for line in out.read_text().splitlines()] == [None, 3.0]
    shown = capsys.readouterr()
    assert "failed: accuracy, 1 times: the sample's answer 'Z' names none of its 2 options" in shown.out
    assert shown.err.strip() == ""
    assert logging.getLogger("rewards").level == logging.NOTSET


def test_fields_that_are_not_read_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", write(tmp_path / "in.jsonl", ROW | {"fram": "norm1000"}), "--rewards", "treevgr"]) == 0
    assert "not read, in 1 rows: fram" in capsys.readouterr().out


def test_where_no_row_has_its_truth_the_format_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predictions = write(tmp_path / "predictions.jsonl", {"id": "1", "key": "1", "response": "so"})
    assert main(["score", predictions, "--rewards", "treevgr"]) == 1
    assert "no row could be scored; docs/rewards.md has their format" in capsys.readouterr().err


def test_signs_of_hacking_are_said_of_enough_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copies = ROW | {"response": "a cup " + "<box>[10,20,30,40]</box>" * 20}
    few, silent = [copies] * (MIN_RESPONSES - 1), ROW | {"response": "so"}
    assert main(["score", write(tmp_path / "in.jsonl", *few), "--rewards", "treevgr"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "warning:" not in shown and f"too few rows for correlations and warnings: they need {MIN_RESPONSES}" in shown
    assert main(["score", write(tmp_path / "in.jsonl", *few, silent), "--rewards", "treevgr"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "warning: boxes is 19.38" in shown and "too few rows" not in shown
    assert "warning: duplicate_rate" not in shown, "the silent row has none, and without it the rows are too few"
    assert main(["score", write(tmp_path / "in.jsonl", *few, copies), "--rewards", "treevgr"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "warning: duplicate_rate is 0.95, above 0.2" in shown and "warning: boxes is 20.00" in shown


@pytest.mark.parametrize("order", [(0, 1, 0), (1, 0, 1)])
def test_a_part_that_equals_its_term_is_shown_once_even_with_gaps(
    order: tuple[int, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = (ROW, ROW | {"answer_kind": "none"})  # accuracy does not apply to the second
    source = write(tmp_path / "in.jsonl", *(rows[index] for index in order))
    assert main(["score", source, "--rewards", "treevgr"]) == 0
    names = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert names.count("accuracy") == names.count("format") == 1
    assert "recall_iou" in names


def test_an_output_that_exists_is_replaced_and_its_folder_is_made(tmp_path: Path) -> None:
    out, source = tmp_path / "made" / "out.jsonl", write(tmp_path / "in.jsonl", ROW)
    for _ in range(2):
        assert main(["score", source, "--rewards", "treevgr", "--out", str(out)]) == 0
        assert json.loads(out.read_text())["id"] == "7"
        assert [path.name for path in out.parent.iterdir()] == ["out.jsonl"]
        out.write_text("old")


def test_standard_input_and_output(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = ROW | {"response": "caf\u00e9 \ud800 \u2028</think><answer>B</answer>"}
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbf" + jsonl(ROW, odd).encode())))
    assert main(["score", "-", "--rewards", "treevgr", "--out", "-"]) == 0
    shown = capfd.readouterr()
    rows = [json.loads(line) for line in shown.out.split("\n") if line]
    assert [row["trace"]["think"][:6] for row in rows] == ["a cup ", "caf\u00e9 \ud800"]
    assert "2 rows scored" in shown.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["score", "{}/nowhere.jsonl", "--rewards", "treevgr"], "nowhere.jsonl: No such file"),
        (["score", "{}/in.jsonl", "--rewards", "treevrg"], "'treevrg' but that is no preset"),
        (["score", "{}/in.jsonl", "--rewards", "{}/nowhere.yaml"], "there is no file"),
        (["score", "{}/in.jsonl", "--rewards", "treevgr", "--out", "{}/in.jsonl"], "is the file that is read"),
        (["score", "{}/empty.jsonl", "--rewards", "treevgr", "--out", "{}/out.jsonl"], "has no rows"),
        (["score", "{}", "--rewards", "treevgr"], "Is a directory"),
    ],
)
def test_what_cannot_be_started_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    write(tmp_path / "in.jsonl", ROW)
    write(tmp_path / "empty.jsonl")
    assert main([argument.replace("{}", str(tmp_path)) for argument in arguments]) == 2
    assert message in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl", "empty.jsonl"}


def test_a_wrong_command_is_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["score"], ["score", "x.jsonl"], ["grade"]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2
    assert "usage: python -m rewards" in capsys.readouterr().err


def test_the_list_has_every_reward_with_its_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    assert set(BUILT_IN) <= set(shown.split())
    assert "matching = 'best'" in shown and "in [0, 1]" in shown


def test_a_reader_that_stops_early_is_no_error(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", *([ROW] * 3000))
    command = f"{sys.executable} -m rewards score {source} --rewards treevgr --out - | head -n 1"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert json.loads(result.stdout)["id"] == "7"
    assert "Traceback" not in result.stderr and "Exception" not in result.stderr


def test_lines_of_any_bytes_are_rows_or_bad_rows() -> None:
    good = json.dumps(ROW).encode()
    results = list(score_lines([good, b"\n", b"\xff\xfe{}\n", b"null", good + b"\r\n"], TREEVGR))
    assert [type(result) for result in results] == [Scored, BadRow, BadRow, Scored]
    assert [result.line for result in results] == [1, 3, 4, 5]


def test_a_source_has_its_own_terms(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("terms: {accuracy: {}, format: {}}\nby_source: {crowd: {format: null}}\n")
    rewards = load_rewards(tmp_path / "mine.yaml")
    lines = [json.dumps(ROW | {"data_source": source}).encode() for source in ("crowd", "other")]
    assert [len(r.composed.terms) for r in score_lines(lines, rewards) if isinstance(r, Scored)] == [1, 2]


def test_masks_are_graded_and_a_response_without_its_masks_has_failed() -> None:
    mask = {"size": [48, 64], "counts": [0, 48 * 20, 48 * 44]}
    row = {
        "id": 1,
        "response": "<think>a [SEG]</think> <answer>it [SEG]</answer>",
        "answer_kind": "none",
        "image_size": [64, 48],
        "targets": [{"mask": mask, "role": "answer"}],
        "pred_masks": [None, {"size": [256, 256], "counts": [0, 256 * 80, 256 * 176]}],
    }
    lines = [json.dumps(row | change).encode() for change in ({}, {"pred_masks": None}, {"pred_masks": [mask]})]
    graded = [result.composed for result in score_lines(lines, load_rewards("vrt")) if isinstance(result, Scored)]
    assert [composed.status for composed in graded] == ["ok", "failed", "failed"]
    assert graded[0].value == 2.0


def test_the_spread_of_numbers_leaves_gaps_out() -> None:
    assert Spread.of([1.0, float("nan"), 0.0, 2.0]) == Spread(3, 1.0, pytest.approx((2 / 3) ** 0.5), 1 / 3)
    assert Spread.of([]).count == 0
