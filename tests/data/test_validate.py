import dataclasses
import io

import pyarrow.parquet as pq
import pytest
from PIL import Image

from vgr_rl.data.images import upright_size
from vgr_rl.data.schema import Row, image_bytes, image_path, write_samples, write_sft
from vgr_rl.data.tiny_world import rl_rows, sft_rows
from vgr_rl.data.validate import DataError, check_samples, check_sft, require_samples, require_sft
from vgr_rl.grounding.frames import Size
from vgr_rl.tiny.traces import LabelNoise

ROWS = list(rl_rows("train", 3, seed=0))
LESSONS = list(sft_rows("sft", 3, 0, "qwen2_5_vl", LabelNoise()))


def with_box(row: Row, box) -> Row:
    target = dataclasses.replace(row.sample.targets[0], box_orig_px=box)
    return dataclasses.replace(row, sample=dataclasses.replace(row.sample, targets=(target,)))


def with_sample(row: Row, **changes) -> Row:
    return dataclasses.replace(row, sample=dataclasses.replace(row.sample, **changes))


def faults_of(tmp_path, row: Row, **options):
    write_samples([ROWS[0], row], tmp_path / "train.parquet")
    return check_samples(tmp_path / "train.parquet", **options)


def test_the_tiny_world_has_no_faults(tmp_path):
    write_samples(ROWS, tmp_path / "train.parquet")
    write_sft(LESSONS, tmp_path / "sft.parquet")
    require_samples([tmp_path / "train.parquet"])
    require_sft([tmp_path / "sft.parquet"])


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ((10.0, 4.0, 5.0, 20.0), "reversed or empty"),
        ((10.0, 4.0, 20.0, 4.0), "reversed or empty"),
        ((0.0, 0.0, 64.5, 20.0), "leaves the image of 64x64 px"),
        ((-1.0, 0.0, 20.0, 20.0), "leaves the image of 64x64 px"),
        ((float("nan"), 0.0, 20.0, 20.0), "is not finite"),
    ],
)
def test_a_bad_box_is_found_with_file_row_field_value_and_knob(tmp_path, box, reason):
    (problem,) = faults_of(tmp_path, with_box(ROWS[1], box), knob="data.val_files")
    assert (problem.row, problem.field) == (1, "extra_info.sample.targets[0].box_orig_px")
    assert problem.value == repr(list(box)) and reason in problem.reason
    for part in (str(tmp_path / "train.parquet"), "row 1", problem.field, problem.value, "data.val_files"):
        assert part in str(problem)


def test_boxes_that_touch_the_border_and_absent_boxes_are_fine(tmp_path):
    for box in [(0.0, 0.0, 64.0, 64.0), None]:
        assert faults_of(tmp_path, with_box(ROWS[1], box)) == []


@pytest.mark.parametrize(
    ("row", "field", "reason"),
    [
        (dataclasses.replace(ROWS[1], images=[]), "images", "is missing"),
        (dataclasses.replace(ROWS[1], images=[image_path("gone.png")]), "images[0]", "no such file"),
        (dataclasses.replace(ROWS[1], images=[image_bytes(b"text")]), "images[0]", "not a readable image"),
        (dataclasses.replace(ROWS[1], images=[{"bytes": None, "path": None}]), "images[0]", "neither bytes nor path"),
        (with_sample(ROWS[1], image_size=Size(64, 80)), "extra_info.sample.image_size", "but the image is 64x64 px"),
        (with_sample(ROWS[1], answer=" "), "extra_info.sample.answer", "is empty though answer_kind is 'choice'"),
        (with_sample(ROWS[1], answer="purple"), "extra_info.sample.answer", "names none of the options"),
        (with_sample(ROWS[1], answer="purple", options=()), "extra_info.sample.answer", "is no option's letter"),
        (with_sample(ROWS[1], id=ROWS[0].sample.id), "id", "is also the id of row 0"),
        (dataclasses.replace(ROWS[1], prompt=[]), "prompt", "is missing"),
        (
            dataclasses.replace(ROWS[1], prompt=[{"role": "user", "content": "Hm?"}]),
            "prompt",
            "but the row has 1 image",
        ),
        (
            dataclasses.replace(ROWS[1], prompt=[{"role": "bot", "content": "<image>Hm?"}]),
            "prompt[0].role",
            "is not one of system, user, assistant",
        ),
    ],
)
def test_each_fault_is_found_in_its_field(tmp_path, row, field, reason):
    problems = faults_of(tmp_path, row)
    assert all(problem.row == 1 for problem in problems)
    assert any(problem.field == field and reason in problem.reason for problem in problems), problems


def test_a_missing_column_and_an_absent_or_empty_file_are_faults_of_the_file(tmp_path):
    path = tmp_path / "train.parquet"
    write_samples(ROWS, path)
    pq.write_table(pq.read_table(path).drop(["images"]), tmp_path / "short.parquet")
    (problem,) = check_samples(tmp_path / "short.parquet")
    assert (problem.row, problem.field) == (None, "images") and "required column" in problem.reason
    (problem,) = check_samples(tmp_path / "gone.parquet")
    assert "no such file" in str(problem)
    write_samples([], path)
    (problem,) = check_samples(path)
    assert problem.field == "rows"


def test_all_faults_of_all_files_come_in_one_error_with_a_summary(tmp_path):
    paths = [tmp_path / name for name in ("a.parquet", "b.parquet")]
    for path in paths:
        write_samples([with_box(row, (9.0, 9.0, 1.0, 1.0)) for row in rl_rows("train", 15, 0)], path)
    with pytest.raises(DataError, match="30 faults in the data .*box_orig_px 30") as caught:
        require_samples(paths, knob="data.train_files")
    assert len(caught.value.problems) == 30
    assert "and 10 more" in str(caught.value)


def test_the_limit_checks_the_first_rows_only(tmp_path):
    bad = with_box(ROWS[1], (9.0, 9.0, 1.0, 1.0))
    assert faults_of(tmp_path, bad, limit=1) == []
    assert len(faults_of(tmp_path, bad, limit=2)) == 1


def test_a_conversation_must_end_with_the_assistant_and_hold_its_images(tmp_path):
    path = tmp_path / "sft.parquet"
    truncated = dataclasses.replace(LESSONS[0], messages=LESSONS[0].messages[:1])
    imageless = dataclasses.replace(LESSONS[1], images=[])
    write_sft([truncated, imageless], path)
    problems = check_sft(path)
    assert [(p.row, p.field) for p in problems] == [(0, "messages[0].role"), (1, "images"), (1, "messages")]


def test_a_truncated_image_passes_by_its_header_and_a_turned_one_is_measured_upright(tmp_path):
    image, exif = Image.new("RGB", (30, 20)), Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert upright_size(image_path(tmp_path / "turned.jpg")) == (20, 30)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    assert upright_size(image_bytes(buffer.getvalue()[:-20])) == (30, 20)
