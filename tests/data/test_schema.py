import datasets
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgr_rl.data import schema
from vgr_rl.data.schema import (
    SAMPLE_SCHEMA,
    SFT_SCHEMA,
    image_path,
    read_records,
    read_samples,
    resolve_image,
    sample_from_json,
    sample_to_json,
    write_samples,
    write_sft,
)
from vgr_rl.data.tiny_world import rl_rows, sft_rows
from vgr_rl.grounding.frames import Size
from vgr_rl.grounding.masks import box_rle
from vgr_rl.grounding.sample import Sample, Target
from vgr_rl.tiny.traces import LabelNoise

COORDINATES = st.floats(0, 1e5, allow_nan=False)


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    width, height = size = Size(draw(st.integers(1, 9999)), draw(st.integers(1, 9999)))
    boxes = st.tuples(COORDINATES, COORDINATES, COORDINATES, COORDINATES)
    target = st.builds(
        Target,
        box_orig_px=st.none() | boxes,
        name=st.text(),
        role=st.sampled_from(["evidence", "answer"]),
        mask_rle=st.none() | st.just(box_rle((0, 0, width / 2, height / 2), size)),
    )
    return Sample(
        id=draw(st.text()),
        data_source=draw(st.text()),
        question=draw(st.text()),
        answer=draw(st.text()),
        answer_kind=draw(st.sampled_from(["choice", "open", "none"])),
        options=tuple(draw(st.lists(st.text(), max_size=4))),
        targets=tuple(draw(st.lists(target, max_size=3))),
        image_size=size,
        extra=draw(st.dictionaries(st.text(), st.integers() | st.text())),
    )


@given(samples())
def test_a_sample_survives_json(sample):
    assert sample_from_json(sample_to_json(sample)) == sample


def test_rows_survive_parquet_in_order(tmp_path, monkeypatch):
    rows = list(rl_rows("val", 9, seed=0))
    monkeypatch.setattr(schema, "_ROWS_A_GROUP", 4)
    assert write_samples(rows, tmp_path / "val.parquet", "val") == 9
    assert pq.ParquetFile(tmp_path / "val.parquet").num_row_groups == 3
    assert list(read_samples(tmp_path / "val.parquet")) == rows
    assert pq.read_schema(tmp_path / "val.parquet").equals(SAMPLE_SCHEMA)
    record = next(read_records(tmp_path / "val.parquet"))
    assert record["reward_model"] == {"style": "rule", "ground_truth": rows[0].sample.answer}
    assert record["extra_info"]["split"] == "val"
    assert record["prompt"][-1]["content"].startswith("<image>")


def test_the_hugging_face_reader_that_verl_uses_sees_the_same_columns(tmp_path):
    write_sft(sft_rows("sft", 3, 0, "qwen3_vl", LabelNoise()), tmp_path / "sft.parquet")
    table = datasets.Dataset.from_parquet(str(tmp_path / "sft.parquet"), cache_dir=str(tmp_path / "cache"))
    assert table.column_names == SFT_SCHEMA.names
    assert table[0]["messages"][1]["content"].startswith("<think>")
    assert table[0]["images"][0]["bytes"].startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ('"answer_kind": "choice"|"answer_kind": "letter"', "answer_kind='letter' is not one of choice, open, none"),
        ('"image_size": [64, 64]|"image_size": [64]', "image_size=.64. must be a list of 2 numbers"),
        ('"question"|"query"', "sample lacks question"),
        ('"role": "evidence"|"role": "proof"', "role='proof' is not one of"),
        ('"answer": "|"answer": 1, "x": "', "sample.answer=1 must be a string"),
        (
            '"mask_rle": null|"mask_rle": {"size": [64, 64], "counts": "042"}',
            r"sample.targets.0..mask_rle.counts='042' has 6 pixels but size=.64, 64. has 4096",
        ),
        ('"mask_rle": null|"mask_rle": {"size": [2, 3], "counts": "042"}', "but the image is 64 wide and 64 high"),
    ],
)
def test_a_malformed_sample_names_its_field(change, message):
    text = sample_to_json(next(rl_rows("val", 1, 0)).sample)
    before, after = change.split("|")
    assert before in text
    with pytest.raises(ValueError, match=message):
        sample_from_json(text.replace(before, after))


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "train.parquet"
    write_samples(rl_rows("train", 2, 0), path)
    before = path.read_bytes()

    def broken():
        yield next(rl_rows("train", 1, 1))
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        write_samples(broken(), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["train.parquet"]


def test_reading_what_is_not_parquet_names_the_file(tmp_path):
    (tmp_path / "x.parquet").write_text("no")
    for name, reason in [("x.parquet", "not a parquet file"), ("y.parquet", "no such file")]:
        with pytest.raises(ValueError, match=f"{name}: {reason}"):
            list(read_records(tmp_path / name))


def test_relative_paths_are_resolved_against_the_folder(tmp_path):
    assert resolve_image(image_path("a/b.png"), tmp_path)["path"] == str(tmp_path / "a/b.png")
    assert resolve_image(image_path("/a/b.png"), tmp_path)["path"] == "/a/b.png"
    assert resolve_image({"bytes": b"x", "path": None}, tmp_path) == {"bytes": b"x", "path": None}
