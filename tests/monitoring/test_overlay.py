import numpy as np
import pytest
from PIL import Image

from vgr_rl.data.tiny_world import GEOMETRY
from vgr_rl.grounding import Sample, Size, Target, box_rle
from vgr_rl.grounding.geometry import ResizeRule
from vgr_rl.grounding.trace import parse_trace
from vgr_rl.monitoring.overlay import COLOURS, MAX_SHAPES, overlay, shown_size
from vgr_rl.training.grading import Grader, build_rewards

SIZE = Size(64, 32)
FORMAT = {"terms": {"format": {"use": "format", "weight": 1.0}}}


def row(response: str, *targets: Target, masks: list | None = None) -> dict:
    sample = Sample("s1", "doc", "Where?", "A", "choice", ("here", "there"), targets, SIZE)
    grader = Grader(build_rewards(FORMAT), ResizeRule(28, 1, 10**6), "orig_px", "<think>")
    trace = parse_trace(response, GEOMETRY, "orig_px", masks=masks)
    return grader.row(grader.score(trace, sample), sample)


def test_boxes_are_in_pixels_of_the_picture_as_it_is_shown() -> None:
    shown = overlay(row("<box>[10,0,20,10]</box><box>[99,0,199,10]</box></think>", Target((10, 0, 20, 5), "cup")),
                    Image.new("RGB", SIZE))  # fmt: skip
    assert shown.picture.size == (256, 128) and shown.file_type == "png"
    (true,) = shown.boxes["true"]
    assert (true.label, true.box_shown_px, true.iou) == ("cup", (40, 0, 80, 20), None)
    near, outside = shown.boxes["predicted"]
    assert (near.label, near.box_shown_px, near.iou) == ("1: IoU 0.50", (40, 0, 80, 40), 0.5)
    assert outside.box_shown_px == (396, 0, 796, 40) and outside.iou == 0.0
    assert "answered None, true 'A', score 0.00" in shown.caption


def test_boxes_and_masks_are_drawn_where_they_are() -> None:
    mask = box_rle((32, 16, 64, 32), SIZE)
    target = Target((2, 2, 10, 10), "cup", mask_rle=box_rle((0, 16, 16, 32), SIZE))
    row_ = row("[SEG][SEG]<box>[20,4,30,12]</box></think>", target, masks=[None, mask])
    assert row_["pred_masks"] == [None, mask] and row_["targets"][0]["mask"] == target.mask_rle
    shown = overlay(row_, Image.new("RGB", SIZE))
    assert (shown.masks["predicted"] == 2).sum() == 32 * 16 * 16  # the second mask, of which the first has no pixels
    pixels = np.asarray(shown.drawn())
    assert tuple(pixels[8, 20]) == COLOURS["true"] and tuple(pixels[20, 80]) == COLOURS["predicted"]
    assert pixels[70, 140].argmax() == 0 and pixels[100, 30].argmax() == 1  # tinted: orange is red, green is green
    assert not pixels[70, 110].any()


def test_of_very_many_boxes_the_first_are_shown_and_the_caption_says_so() -> None:
    shown = overlay(
        row("<box>[10,0,20,10]</box>" * 999 + "<box>[7,7,999999999,999999999]</box>" + "</think>"),
        Image.new("RGB", SIZE),
    )
    assert [box.label for box in shown.boxes["predicted"]] == [str(n) for n in range(1, MAX_SHAPES + 1)]
    assert f"the first {MAX_SHAPES} of 1000 boxes" in shown.caption


def test_boxes_far_outside_are_drawn_as_far_as_there_is_a_picture() -> None:
    far = "<box>[32,16,999999999,999999999]</box><box>[999999998,5,999999999,9]</box></think>"
    pixels = np.asarray(overlay(row(far), Image.new("RGB", SIZE)).drawn())
    assert tuple(pixels[100, 128]) == tuple(pixels[64, 240]) == COLOURS["predicted"] and not pixels[90:, 140:].any()


@pytest.mark.parametrize("size, shown", [((64, 64), (256, 256)), ((100, 30), (300, 90)), ((300, 8), (300, 8)),
                                         ((4000, 3000), (640, 480)), ((9000, 2), (640, 1))])  # fmt: skip
def test_small_pictures_are_enlarged_and_large_ones_reduced(size: tuple[int, int], shown: tuple[int, int]) -> None:
    assert shown_size(Size(*size)) == shown


def test_a_photograph_is_stored_as_one() -> None:
    shown = overlay({**row("</think>"), "image_size": [1280, 960]}, Image.new("RGB", (1280, 960)))
    assert shown.picture.size == (640, 480) and shown.file_type == "jpeg"


@pytest.mark.parametrize("name", ["a cup\non the left", "\n"])
def test_a_label_of_several_lines_is_drawn_as_one(name: str) -> None:
    shown = overlay(row("<think>", Target((10, 0, 20, 5), name)), Image.new("RGB", SIZE))
    assert (np.asarray(shown.drawn()) == COLOURS["true"]).all(axis=-1).any()
