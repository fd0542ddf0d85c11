from dataclasses import replace
from pathlib import Path

import numpy as np

from vgr_rl import prepare
from vgr_rl.data.schema import read_records, read_samples
from vgr_rl.data.tiny_masks import rl_rows, sft_rows, tell
from vgr_rl.grounding import ImageGeometry, Size, parse_trace
from vgr_rl.grounding.masks import decode
from vgr_rl.tiny.world import generate, render, shape_mask

GEOMETRY = ImageGeometry(Size(64, 64), Size(64, 64))


def test_masks_are_the_pixels_of_their_shapes() -> None:
    for scene in generate("train", 20):
        masks = [shape_mask(shape) for shape in scene.shapes]
        for mask, shape in zip(masks, scene.shapes, strict=True):
            rows, columns = np.nonzero(mask)
            assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == shape.box_orig_px
        painted = (render(scene) != render(replace(scene, shapes=()))).any(axis=-1)
        assert (np.logical_or.reduce(masks) == painted).all() and not np.logical_and.reduce(masks[:2]).any()


def test_each_seg_has_the_mask_of_the_object_before_it() -> None:
    scenes = list(generate("sft", 60))
    assert {scene.task for scene in scenes} == {"colour", "side", "count"}
    for scene, row in zip(scenes, sft_rows("sft", 60, 0), strict=True):
        told = tell(scene)
        trace = parse_trace(row.messages[-1]["content"], GEOMETRY, "orig_px")
        assert (len(trace.seg_reasoning), len(trace.seg_answer)) == (len(told.evidence), len(told.answer))
        assert row.masks is not None and trace.segs == len(row.masks)
        for mask, shape in zip(decode(row.masks), (*told.evidence, *told.answer), strict=True):
            assert (mask == shape_mask(shape)).all()
        if scene.task == "side":
            left = min(scene.targets, key=lambda shape: shape.box_orig_px[0] + shape.box_orig_px[2])
            assert told.answer == (left,) and f"{left.colour} {left.kind}" in (trace.answer or "")


def test_samples_have_the_same_masks_as_conversations() -> None:
    for row, lesson in zip(rl_rows("sft", 20, 0), sft_rows("sft", 20, 0), strict=True):
        assert [target.mask_rle for target in row.sample.targets] == lesson.masks
        assert row.prompt == lesson.messages[:1] and row.sample.id == lesson.id


def test_the_command_writes_data_and_a_model(tmp_path: Path) -> None:
    from transformers import AutoProcessor

    from vgr_rl.segment.model import RSa2VA

    counts = ["--sft", "3", "--sft-val", "2", "--train", "2", "--heldout", "2"]
    prepare.main(["tiny-masks", "--out", str(tmp_path), *counts])
    lessons = [list(read_records(tmp_path / f"sft_{split}.parquet")) for split in ("train", "val")]
    assert list(map(len, lessons)) == [3, 2] and all(row["masks"] for row in lessons[0])
    assert len(list(read_samples(tmp_path / "heldout.parquet"))) == 2
    model = RSa2VA.from_pretrained(tmp_path / "model")
    tokenizer = AutoProcessor.from_pretrained(tmp_path / "model").tokenizer
    assert tokenizer("[SEG]")["input_ids"] == [model.config.seg_token_id]
