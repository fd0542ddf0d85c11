import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vgr_rl.data import treevgr
from vgr_rl.data.records import RowError
from vgr_rl.data.validate import DataError

RAW = {
    "images": ["photos/street.jpg"],
    "problem": "<image>\nHow many cars are in the image?\nA. 5\nB. 6\nC. 7\nD. 8",
    "answer": "(B)",
    "target_instances": [
        {"bbox": [10, 20, 40, 60], "label": "car", "name": "white car"},
        {"bbox": [100.5, 0, 320, 30], "label": "car", "name": None},
    ],
}


@pytest.fixture
def root(tmp_path):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (320, 240)).save(tmp_path / "photos/street.jpg")
    return tmp_path


def test_a_multiple_choice_row(root):
    row = treevgr.to_row(RAW, "r1", root)
    sample = row.sample
    assert (sample.answer, sample.answer_kind, sample.options) == ("B", "choice", ("5", "6", "7", "8"))
    assert sample.question == "How many cars are in the image?"
    assert sample.image_size == (320, 240)
    assert [t.box_orig_px for t in sample.targets] == [(10, 20, 40, 60), (100.5, 0, 320, 30)]
    assert [t.name for t in sample.targets] == ["white car", "car"]
    assert row.prompt == [
        {"role": "system", "content": treevgr.SYSTEM_PROMPT},
        {"role": "user", "content": RAW["problem"]},
    ]
    assert row.images == [{"bytes": None, "path": str(root / "photos/street.jpg")}]


def test_an_open_row_keeps_its_whole_question_and_needs_no_target_box(root):
    raw = {**RAW, "problem": "<image>\nWhat does the sign say?\nA. is not an option", "answer": " Main street ",
           "target_instances": [{"bbox": None, "label": "sign", "name": "sign"}]}  # fmt: skip
    sample = treevgr.to_row(raw, "r1", root, system_prompt="").sample
    assert (sample.answer, sample.answer_kind, sample.options) == ("Main street", "open", ())
    assert sample.question == "What does the sign say?\nA. is not an option"
    assert sample.targets[0].box_orig_px is None
    assert treevgr.to_row(raw, "r1", root, system_prompt="").prompt[0]["role"] == "user"


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("Which?\n(A) red\n(B) blue", ("red", "blue")),
        ("Which?\nA) red \nB) blue", ("red", "blue")),
        ("Which?\nB. blue\nC. red", ()),
        ("What is in box A. of the form?", ()),
    ],
)
def test_options_stand_on_lines_of_their_own(text, options):
    question, found = treevgr.split_options(text)
    assert found == options
    assert question == ("Which?" if options else text)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"answer": None}, "answer"),
        ({"answer": "  "}, "answer"),
        ({"images": []}, "images"),
        ({"images": ["gone.jpg"]}, r"images\[0\]"),
        ({"problem": "How many?"}, "problem"),
        ({"target_instances": [{"bbox": [10, 20, 5, 60]}]}, r"target_instances\[0\].bbox"),
        ({"target_instances": [{"bbox": [10, 20, 321, 60]}]}, r"target_instances\[0\].bbox"),
        ({"target_instances": [{"bbox": [10, 20, 30]}]}, r"target_instances\[0\].bbox"),
        ({"target_instances": None}, "target_instances"),
    ],
)
def test_a_bad_row_names_its_field(root, change, field):
    with pytest.raises(RowError, match=f"^{field}="):
        treevgr.to_row({**RAW, **change}, "r1", root)


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "json"])
def test_a_file_of_rows_loads_whatever_its_kind(root, kind):
    path, rows = root / f"rows.{kind}", [RAW, {**RAW, "answer": "A"}]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text(json.dumps(rows) if kind == "json" else "\n".join(map(json.dumps, rows)))
    samples = [row.sample for row in treevgr.read_samples(path)]
    assert [s.answer for s in samples] == ["B", "A"]
    assert len({s.id for s in samples}) == 2


def test_bad_rows_are_an_error_that_lists_them_all_or_are_skipped_and_counted(root):
    bad = {**RAW, "answer": ""}
    (root / "rows.json").write_text(json.dumps([RAW, bad, RAW, bad]))
    with pytest.raises(DataError) as caught:
        list(treevgr.read_samples(root / "rows.json"))
    assert [(p.row, p.field) for p in caught.value.problems] == [(1, "answer"), (3, "answer")]
    assert str(caught.value).startswith("2 faults in the data (answer 2); skip them with --skip-bad:")
    assert str(caught.value).count("--skip-bad") == 1
    conversion = treevgr.read_samples(root / "rows.json", skip_bad=True)
    assert len(list(conversion)) == 2 and len(conversion.problems) == 2
    conversion.write_skipped(root / "skipped.jsonl")
    assert [json.loads(line)["row"] for line in (root / "skipped.jsonl").read_text().splitlines()] == [1, 3]
