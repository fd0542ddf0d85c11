import json
import os
import shutil
from pathlib import Path

import pytest

from vgr_rl.benchmarks.store import RowFile, check_settings, fingerprint, write_json


def test_rows_survive_a_kill_in_the_middle_of_a_line(tmp_path: Path):
    path = tmp_path / "greedy.jsonl"
    file = RowFile(path)
    file.append({"id": "a", "text": "é"})
    file.append({"id": "b"})
    file.close()
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"id": "c", "te')

    again = RowFile(path)
    assert list(again.rows) == ["a", "b"]
    again.append({"id": "d"})
    again.close()
    assert path.read_bytes() == whole + b'{"id": "d"}\n'


def test_finished_rows_stand_in_the_order_of_the_data(tmp_path: Path):
    file = RowFile(tmp_path / "greedy.jsonl")
    for row_id in ("c", "a", "x", "b"):
        file.append({"id": row_id})
    file.finish(["a", "b", "missing", "c"])
    lines = (tmp_path / "greedy.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["a", "b", "c", "x"]
    assert [p.name for p in tmp_path.iterdir()] == ["greedy.jsonl"]


def test_a_broken_line_that_is_not_the_last_is_an_error(tmp_path: Path):
    path = tmp_path / "greedy.jsonl"
    path.write_text('{"id": "a"}\nnot json\n{"id": "b"}\n')
    with pytest.raises(ValueError, match=r"greedy.jsonl line 2 is not JSON.*overwrite=true"):
        RowFile(path)


def test_rows_are_plain_json(tmp_path: Path):
    file = RowFile(tmp_path / "greedy.jsonl")
    with pytest.raises(ValueError, match="not JSON compliant"):
        file.append({"id": "a", "score": float("nan")})


def test_settings_of_a_continued_evaluation_must_be_equal(tmp_path: Path):
    path = tmp_path / "settings.json"
    check_settings(path, {"seed": 0, "resize": {"factor": 28}, "data": "abc"})
    check_settings(path, {"data": "abc", "seed": 0, "resize": {"factor": 28}})
    with pytest.raises(ValueError, match=r"seed=0 but this one has seed=1.*out=.*overwrite=true"):
        check_settings(path, {"seed": 1, "resize": {"factor": 28}, "data": "abc"})
    with pytest.raises(ValueError, match="top_p=None but this one has top_p=0.9"):
        check_settings(path, {"seed": 0, "resize": {"factor": 28}, "data": "abc", "top_p": 0.9})


def test_fingerprint_follows_content_not_place_or_time(tmp_path: Path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    weights = bytearray(os.urandom(9_000_000))
    (model / "model.safetensors").write_bytes(weights)
    first = fingerprint(model)
    shutil.copytree(model, tmp_path / "copy")
    os.utime(tmp_path / "copy" / "model.safetensors", (0, 0))
    assert fingerprint(tmp_path / "copy") == first

    (model / "notes.md").write_text("not part of the model")
    assert fingerprint(model) == first
    trained = bytes(byte ^ 1 for byte in weights)
    (model / "model.safetensors").write_bytes(trained)
    assert fingerprint(model) != first


@pytest.mark.parametrize("position", [0, 70_000, 99_999])
def test_one_changed_byte_of_a_small_file_changes_its_fingerprint(tmp_path: Path, position: int):
    path = tmp_path / "data.parquet"
    content = bytearray(100_000)
    path.write_bytes(content)
    first = fingerprint(path)
    content[position] = 1
    path.write_bytes(content)
    assert fingerprint(path) != first


def test_json_appears_whole_or_not_at_all(tmp_path: Path):
    path = tmp_path / "summary.json"
    write_json(path, {"n": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"n": float("inf")})
    assert json.loads(path.read_text()) == {"n": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]
