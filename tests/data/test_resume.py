import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from vgr_rl import prepare
from vgr_rl.data.resume import ChunkStore

ROWS = 3000


def rows(folder, answer="a cat"):
    Image.new("RGB", (64, 64)).save(folder / "first.png")
    Image.new("RGB", (64, 64)).save(folder / "a.png")
    row = {
        "question": "What?",
        "answer_kind": "open",
        "answer": answer,
        "targets": [{"box": [0, 0, 9, 9], "name": "x"}],
    }
    lines = [{**row, "id": f"{n}", "image": "a.png" if n else "first.png"} for n in range(ROWS)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def command(folder, out):
    return ["jsonl", "--input", str(folder / "rows.jsonl"), "--out", str(out), "--workers", "2"]


@pytest.fixture
def killed(tmp_path):
    """A folder with a conversion that was killed behind its first chunks."""
    rows(tmp_path)
    out = tmp_path / "out" / "rows.parquet"
    run = subprocess.Popen([sys.executable, "-m", "vgr_rl.prepare", *command(tmp_path, out)])
    deadline = time.monotonic() + 120
    while not list(out.parent.glob(".*.partial/0000000.pickle")):
        assert run.poll() is None and time.monotonic() < deadline, "the conversion kept nothing before it ended"
        time.sleep(0.002)
    run.kill()  # its workers notice, and Python's resource tracker removes what they shared
    run.wait()
    assert not out.exists()
    return tmp_path


def test_a_killed_conversion_goes_on_behind_what_it_had_and_writes_the_same_bytes(killed, caplog):
    whole, out = killed / "whole.parquet", killed / "out" / "rows.parquet"
    prepare.main(command(killed, whole))
    (killed / "first.png").unlink()  # of a row that was converted before the kill: it is not looked at again
    with caplog.at_level("INFO", "vgr_rl.prepare"):
        prepare.main(command(killed, out))
    assert "rows were converted before this run" in caplog.text
    assert out.read_bytes() == whole.read_bytes()
    names = {path.name for path in out.parent.iterdir()}
    assert names == {"rows.parquet", "rows.card.md", "rows.card.json", "rows.card.png"}
    card, whole_card = (json.loads(path.with_suffix(".card.json").read_text()) for path in (out, whole))
    assert card == whole_card


def test_a_changed_source_is_converted_anew(killed, caplog):
    rows(killed, answer="a dog")
    out = killed / "out" / "rows.parquet"
    with caplog.at_level("INFO", "vgr_rl.prepare"):
        prepare.main(command(killed, out))
    assert "before this run" not in caplog.text
    assert not list(out.parent.glob(".*.partial"))
    from vgr_rl.data.schema import read_samples

    assert {row.sample.answer for row in read_samples(out)} == {"a dog"}


def test_other_settings_open_another_store_and_remove_the_first(tmp_path):
    out, source = tmp_path / "a.parquet", tmp_path / "rows.jsonl"
    source.write_text("{}")
    first = ChunkStore.beside(out, source, partial(rows, 1), {})
    first.write(0, ["kept"])
    again = ChunkStore.beside(out, source, partial(rows, 1), {})
    assert len(again) == 1 and again.read(0) == ["kept"] and again.read(1) is None
    other = ChunkStore.beside(out, source, partial(rows, 2), {})
    assert len(other) == 0 and not first.folder.exists()
    other.write(0, ["train"])
    assert len(ChunkStore.beside(out, source, partial(rows, 2), {"hub_split": "test"})) == 0


def test_a_store_that_others_may_write_to_is_refused(tmp_path):
    out, source = tmp_path / "a.parquet", tmp_path / "rows.jsonl"
    source.write_text("{}")
    ChunkStore.beside(out, source, rows, {}).folder.chmod(0o777)
    with pytest.raises(ValueError, match=r"\.partial: rows are read back from it, but others"):
        ChunkStore.beside(out, source, rows, {})


def test_the_store_is_ours_alone(tmp_path):
    folder = ChunkStore.beside(tmp_path / "a.parquet", Path("owner/name"), rows, {}).folder
    assert folder.stat().st_mode & 0o777 == 0o700
