import json
from pathlib import Path

import pytest

from vgr_rl.viewer.tail import Tail


def write(path: Path, *texts: str) -> None:
    with path.open("a") as file:
        file.write("".join(texts))


def test_lines_come_once_and_when_they_are_complete(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    tail = Tail(path)
    assert tail.read() == ([], False)
    write(path, '{"a": 1}\n{"a": ')
    assert tail.read() == ([{"a": 1}], False)
    assert tail.read() == ([], False)
    write(path, '2}\n{"a": "\u2028\u00e9"}\n')
    assert tail.read() == ([{"a": 2}, {"a": "\u2028\u00e9"}], False)


def test_a_line_cut_inside_a_character_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    whole = (json.dumps({"a": "\U0001f600"}, ensure_ascii=False) + "\n").encode()
    tail = Tail(path)
    path.write_bytes(whole[:8])
    assert tail.read() == ([], False)
    path.write_bytes(whole)
    assert tail.read()[0] == [{"a": "\U0001f600"}]


def test_a_file_that_is_cut_replaced_or_rewritten_begins_again(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    tail = Tail(path)
    write(path, '{"a": 1}\n', '{"a": 2}\n')
    tail.read()
    path.write_text('{"a": 3}\n')  # shorter
    assert tail.read() == ([{"a": 3}], True)
    path.write_text('{"a": 4}\n{"a": 5}\n')  # longer, in place
    assert tail.read() == ([{"a": 4}, {"a": 5}], True)
    other = tmp_path / "rows.tmp"
    other.write_text('{"a": 4}\n{"a": 5}\n{"a": 6}\n')
    other.replace(path)  # another file under its name, as a resumed run makes it
    assert tail.read() == ([{"a": 4}, {"a": 5}, {"a": 6}], True)


def test_a_file_that_goes_leaves_what_was_read_and_may_come_back(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    tail = Tail(path)
    write(path, '{"a": 1}\n')
    tail.read()
    path.unlink()
    assert tail.read() == ([], False)
    write(path, '{"b": 1}\n')
    assert tail.read() == ([{"b": 1}], True)


def test_a_large_file_comes_in_pieces_and_a_long_line_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vgr_rl.viewer.tail._PIECE", 20)
    path = tmp_path / "rows.jsonl"
    rows = [{"a": 1}, {"a": 2}, {"a": 3}, {"a": "x" * 100}, {"a": 4}]
    write(path, *(json.dumps(row) + "\n" for row in rows), '{"a"')
    tail = Tail(path)
    read = [tail.read()[0]]
    while tail.behind:
        read.append(tail.read()[0])
    assert sum(read, []) == rows and len(read) > 2
    path.unlink()
    assert tail.read() == ([], False) and not tail.behind


def test_lines_that_are_no_objects_are_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    tail = Tail(path)
    path.write_bytes(b'{"a": 1}\nnonsense\n[1]\n\xff\xfe\n\n{"a": 2}\n')
    assert tail.read() == ([{"a": 1}, {"a": 2}], False)
    assert tail.bad_lines == 3
