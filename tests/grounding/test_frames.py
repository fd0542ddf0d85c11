import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgr_rl.grounding import Box, Frame, ImageGeometry, ResizeRule, Size, model_frame

RULE = ResizeRule(factor=28, min_pixels=56 * 56, max_pixels=1280 * 28 * 28)
FRAMES: tuple[Frame, ...] = ("orig_px", "model_px", "norm1000")
sides = st.integers(30, 4000)
geometries = st.builds(lambda width, height: RULE.geometry(Size(width, height)), sides, sides)


@st.composite
def geometry_and_box(draw: st.DrawFn) -> tuple[ImageGeometry, Box]:
    """A box of whole pixels inside its image, at least four pixels of the resized image wide and high."""
    geometry = draw(geometries)

    def side(index: int) -> tuple[int, int]:
        length = geometry.orig_size[index]
        least = min(length, -(-4 * length // geometry.model_size[index]))
        start = draw(st.integers(0, length - least))
        return start, draw(st.integers(start + least, length))

    (x1, x2), (y1, y2) = side(0), side(1)
    return geometry, (x1, y1, x2, y2)


@given(geometry_and_box(), st.sampled_from(FRAMES))
def test_a_round_trip_through_a_frame_returns_the_box(case: tuple[ImageGeometry, Box], frame: Frame) -> None:
    geometry, box = case
    assert geometry.to_orig(geometry.from_orig(box, frame), frame) == pytest.approx(box, rel=1e-12, abs=1e-9)


@given(geometry_and_box())
def test_written_boxes_come_back_within_one_model_pixel(case: tuple[ImageGeometry, Box]) -> None:
    geometry, box = case
    back = geometry.to_orig(geometry.written(box, "model_px"), "model_px")
    for axis in range(4):
        model_pixel = geometry.orig_size[axis % 2] / geometry.model_size[axis % 2]
        assert abs(back[axis] - box[axis]) <= 0.5 * model_pixel + 1e-9


@given(geometry_and_box())
def test_written_norm1000_boxes_come_back_within_one_thousandth(case: tuple[ImageGeometry, Box]) -> None:
    geometry, box = case
    back = geometry.to_orig(geometry.written(box, "norm1000"), "norm1000")
    for axis in range(4):
        assert abs(back[axis] - box[axis]) <= geometry.orig_size[axis % 2] / 1000 + 1e-9


@given(geometries, st.data(), st.sampled_from(FRAMES))
def test_any_box_in_the_image_is_written_as_a_valid_box_in_the_frame(
    geometry: ImageGeometry, data: st.DataObject, frame: Frame
) -> None:
    width, height = geometry.orig_size
    x1, y1 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    x2, y2 = data.draw(st.integers(x1 + 1, width)), data.draw(st.integers(y1 + 1, height))
    left, top, right, bottom = geometry.written((x1, y1, x2, y2), frame)
    limits = {"orig_px": geometry.orig_size, "model_px": geometry.model_size, "norm1000": (1000, 1000)}[frame]
    assert 0 <= left < right <= limits[0]
    assert 0 <= top < bottom <= limits[1]


def test_frames_use_width_for_x_and_height_for_y() -> None:
    geometry = ImageGeometry(Size(200, 100), Size(400, 500))
    assert geometry.to_orig((40, 50, 400, 500), "model_px") == (20, 10, 200, 100)
    assert geometry.to_orig((100, 100, 1000, 1000), "norm1000") == (20, 10, 200, 100)
    assert geometry.to_orig((1, 2, 3, 4), "orig_px") == (1, 2, 3, 4)
    assert geometry.from_orig((20, 10, 200, 100), "model_px") == (40, 50, 400, 500)


def test_a_box_outside_the_image_is_mapped_and_not_clipped() -> None:
    assert ImageGeometry(Size(100, 100), Size(200, 200)).to_orig((0, 0, 900, 900), "model_px") == (0, 0, 450, 450)


@pytest.mark.parametrize(
    ("model_type", "frame"),
    [("qwen2_vl", "model_px"), ("qwen2_5_vl", "model_px"), ("qwen3_vl", "norm1000"), ("qwen3_vl_moe", "norm1000")],
)
def test_model_families_declare_their_frame(model_type: str, frame: Frame) -> None:
    assert model_frame(model_type) == frame


def test_an_unknown_family_names_the_knob() -> None:
    with pytest.raises(ValueError, match=r"'llava'.*model\.frame"):
        model_frame("llava")


def test_an_unknown_frame_and_an_empty_image_are_errors() -> None:
    with pytest.raises(ValueError, match=r"model\.frame='px'.*norm1000"):
        ImageGeometry(Size(1, 1), Size(1, 1)).to_orig((0, 0, 1, 1), "px")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="model_size=0x3"):
        ImageGeometry(Size(1, 1), Size(0, 3))
