"""Run lengths against painted pixels, and check_rle against everything that pycocotools would choke on."""

import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from pycocotools import mask as coco

from vgr_rl.grounding.frames import Box, Size
from vgr_rl.grounding.masks import (
    Rle,
    box_rle,
    check_rle,
    decode,
    encode,
    resample,
    rle_area,
    rle_box,
    rle_iou,
)

sides = st.integers(1, 12)


@st.composite
def stacks(draw: st.DrawFn, most: int = 4) -> np.ndarray:
    """Up to `most` masks of one size, whole rows and columns of one value being common."""
    shape = (draw(st.integers(1, most)), draw(sides), draw(sides))
    dense = np.random.default_rng(draw(st.integers(0, 2**32))).random(shape) < draw(
        st.sampled_from([0, 0.1, 0.5, 0.9, 1])
    )
    return dense if draw(st.booleans()) else dense & dense[:, :1]


@st.composite
def runs(draw: st.DrawFn) -> tuple[list[int], Size]:
    """Run lengths with empty runs anywhere, as foreign code writes them."""
    height, width = draw(sides), draw(sides)
    cuts = sorted(draw(st.lists(st.integers(0, height * width), max_size=12)))
    return np.diff([0, *cuts, height * width]).tolist(), Size(width, height)


def painted(counts: list[int], size: Size) -> np.ndarray:
    """The pixels of run lengths, column by column, without pycocotools."""
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return flat.reshape(size.width, size.height).T


def dense_iou(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / max((a | b).sum(), 1)


@given(stacks())
def test_pixels_survive_encoding_and_the_text_is_the_one_of_coco(dense: np.ndarray) -> None:
    rles = encode(dense)
    assert np.array_equal(decode(rles), dense)
    height, width = dense.shape[1:]
    for rle, pixels in zip(rles, dense, strict=True):
        assert rle["counts"].encode() == coco.encode(np.asfortranarray(pixels, dtype=np.uint8))["counts"]
        assert check_rle(json.loads(json.dumps(rle)), Size(width, height)) == rle


@given(runs())
def test_every_form_of_counts_becomes_the_same_text(given_runs: tuple[list[int], Size]) -> None:
    counts, size = given_runs
    raw = coco.frPyObjects({"size": [size.height, size.width], "counts": counts}, size.height, size.width)
    expected = encode(painted(counts, size)[None])[0]
    assert check_rle({"size": [size.height, size.width], "counts": counts}, size) == expected
    assert check_rle(raw, size) == expected
    assert check_rle({**raw, "counts": raw["counts"].decode(), "id": 7}) == expected


@given(stacks(), stacks())
def test_iou_area_and_box_equal_those_of_the_pixels(preds: np.ndarray, targets: np.ndarray) -> None:
    targets = np.resize(targets, (len(targets), *preds.shape[1:]))
    expected = [[dense_iou(pred, target) for target in targets] for pred in preds]
    assert rle_iou(encode(preds), encode(targets)) == pytest.approx(np.array(expected))
    for rle, pixels in zip(encode(preds), preds, strict=True):
        assert rle_area(rle) == pixels.sum()
        rows, columns = np.nonzero(pixels)
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) if rows.size else None
        assert rle_box(rle) == box


@given(stacks(most=1), sides, sides)
def test_resampling_picks_the_pixels_of_the_rule(dense: np.ndarray, width: int, height: int) -> None:
    old_height, old_width = dense.shape[1:]
    rows, columns = np.arange(height) * old_height // height, np.arange(width) * old_width // width
    assert resample(encode(dense)[0], Size(width, height)) == encode(dense[:, rows][:, :, columns])[0]


@pytest.mark.parametrize("shape", [(1500, 2250), (719, 1283), (100, 77), (256, 300)])
def test_resampling_to_256_is_the_nearest_mode_of_torch(shape: tuple[int, int]) -> None:
    dense = np.random.default_rng(0).random((1, 1, *shape)) < 0.5
    expected = torch.nn.functional.interpolate(torch.from_numpy(dense).float(), size=(256, 256), mode="nearest")
    assert np.array_equal(decode([resample(encode(dense[0])[0], Size(256, 256))])[0], expected[0, 0].bool().numpy())


def test_a_mask_of_the_size_wanted_is_not_touched() -> None:
    rle = encode(np.eye(4, dtype=bool)[None])[0]
    assert resample(rle, Size(4, 4)) is rle
    with pytest.raises(ValueError, match="size=0x4 but a mask needs"):
        resample(rle, Size(0, 4))


edges = st.floats(-15, 15) | st.sampled_from([float("inf"), float("-inf"), float("nan"), 1e300, 0.5, 3.5])


@given(st.tuples(edges, edges, edges, edges), sides, sides)
@example((float("nan"), 0, 9, 9), 5, 5)
@example((0, 0, 9, float("nan")), 5, 5)
@example((float("-inf"), 1, float("inf"), 3), 5, 5)
def test_a_box_covers_the_pixels_whose_centre_it_holds(box: Box, width: int, height: int) -> None:
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    inside = ((y >= box[1]) & (y < box[3]))[:, None] & (x >= box[0]) & (x < box[2])
    assert box_rle(box, Size(width, height)) == encode(inside[None])[0]


def test_few_masks() -> None:
    rle = box_rle((0, 0, 2, 2), Size(4, 4))
    assert (rle_iou([], [rle]), rle_iou([rle], []), rle_iou([], [])) == ([], [[]], [])
    empty = box_rle((0, 0, 0, 0), Size(4, 4))
    assert rle_iou([empty, rle], [empty, rle]) == [[0.0, 0.0], [0.0, 1.0]]
    assert encode(np.zeros((0, 4, 4), dtype=bool)) == []


def test_masks_of_different_sizes_are_an_error_also_where_their_boxes_are_apart() -> None:
    a, b = box_rle((0, 0, 2, 2), Size(4, 4)), box_rle((3, 3, 4, 4), Size(5, 4))
    with pytest.raises(ValueError, match="masks of 4x4 and 5x4 px cannot be compared; resample"):
        rle_iou([a], [b])
    for rles in ([a, b], []):
        with pytest.raises(ValueError, match="cannot be stacked"):
            decode(rles)


def test_memory_of_a_comparison_does_not_grow_with_the_area() -> None:
    def peak(side: int) -> int:
        rles = [box_rle((3, side / 4, 9, side / 2), Size(side, side)) for _ in range(2)]
        tracemalloc.start()
        rle_iou(rles, rles)
        resample(rles[0], Size(64, 64))
        try:
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(16_384) < 1.2 * peak(128)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "is a NoneType but expected a mapping with size and counts"),
        ({"size": [2, 3]}, r"has keys \['size'\] but expected"),
        ({"size": [2, 3], "counts": 6}, r"counts is a int but expected text or a list"),
        ({"size": [2], "counts": [6]}, r"size=\[2\] but expected \[height, width\]"),
        ({"size": [2.0, 3], "counts": [6]}, r"size=\[2.0, 3\]"),
        ({"size": [True, 6], "counts": [6]}, r"size=\[True, 6\]"),
        ({"size": [0, 3], "counts": []}, r"size=\[0, 3\]"),
        ({"size": [3, 2], "counts": [6]}, r"size=\[3, 2\] .* but the image is 3 wide and 2 high"),
        ({"size": [2, 3], "counts": [2, 3]}, r"counts=\[2, 3\] has 5 pixels but size=\[2, 3\] has 6"),
        ({"size": [2, 3], "counts": []}, "has 0 pixels"),
        ({"size": [2, 3], "counts": ""}, "has 0 pixels"),
        ({"size": [2, 3], "counts": [2, -3, 7]}, r"counts\[1\]=-3 but expected a whole number from 0 to 6"),
        ({"size": [2, 3], "counts": [2, 10**30]}, r"counts\[1\]=1000"),
        ({"size": [2, 3], "counts": [2, 4.0]}, r"counts\[1\]=4.0"),
        ({"size": [2, 3], "counts": "043"}, "counts='043' has 7 pixels"),
        ({"size": [2, 3], "counts": b"04"}, "counts='04' has 4 pixels"),
        ({"size": [2, 3], "counts": "04R"}, "counts='04R' ends inside a number"),
        ({"size": [2, 3], "counts": "PPPPPP0"}, "more than 6 characters"),
        ({"size": [2, 3], "counts": "4M5"}, "has a run of -3 pixels"),
        ({"size": [2, 3], "counts": "04\u00e9"}, "characters outside"),
        ({"size": [2, 3], "counts": "04\ud800"}, "characters outside"),
        ({"size": [2, 3], "counts": b"04\x002"}, "characters outside"),
        ({"size": [2, 3], "counts": "0 4"}, "characters outside"),
    ],
)
def test_what_is_wrong_with_a_mask_is_named(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=rf"targets\[1\]\.mask.*{message}"):
        check_rle(value, Size(3, 2), where="targets[1].mask")


def test_a_mask_that_is_too_large_for_pycocotools_is_refused() -> None:
    assert check_rle({"size": [20_000, 20_000], "counts": [1, 399_999_999]})["size"] == [20_000, 20_000]
    with pytest.raises(ValueError, match="fewer than 536870912 pixels"):
        check_rle({"size": [30_000, 30_000], "counts": [900_000_000]})


@given(st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=20) | st.text(max_size=8), sides, sides)
def test_any_text_is_refused_or_safe_to_use(counts: str, height: int, width: int) -> None:
    try:
        rle: Rle = check_rle({"size": [height, width], "counts": counts})
    except ValueError:
        return
    assert rle_iou([rle], [rle]) == [[float(rle_area(rle) > 0)]]
    assert encode(decode([rle]))[0] == rle
