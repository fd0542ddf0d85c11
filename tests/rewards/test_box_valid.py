import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.box_valid import BoxValid
from vgr_rl.grounding import Frame, ImageGeometry, Sample, Size, parse_trace

SIZE = Size(200, 100)


def grade(response: str, frame: Frame = "orig_px", size: Size = SIZE, **params: Any) -> float:
    trace = parse_trace(response, ImageGeometry(size, Size(280, 140)), frame)
    score = BoxValid(**params)(trace, Sample("7", "test", "Where?", "", "none", (), (), size))
    assert score.status == "ok"
    assert score.parts == {"box_valid": score.value, "malformed_boxes": trace.malformed}
    return score.value


@pytest.mark.parametrize(
    ("box", "value"),
    [
        ("[0,0,200,100]", 1.0),
        ("[199,99,200,100]", 1.0),
        ("[0,0,202,101]", 1.0),  # one hundredth of each side is tolerated
        ("[0,0,203,100]", 0.0),
        ("[0,0,200,102]", 0.0),
        ("[0,0,100,200]", 0.0),  # x and y mixed up
        ("[400,300,500,400]", 0.0),
        ("[0,0,999999999,999999999]", 0.0),
        ("[9,9,9,20]", 0.0),
        ("[9,9,3,3]", 0.0),
        ("9,9,30,30", 0.0),
    ],
)
def test_one_box(box: str, value: float) -> None:
    assert grade(f"see <box>{box}</box>") == value


def test_the_share_counts_malformed_boxes() -> None:
    assert grade("<box>[0,0,9,9]</box><box>[0,0,900,9]</box><box>here</box><box>") == pytest.approx(1 / 4)


def test_silence_is_worth_what_the_parameter_says() -> None:
    assert grade("nothing to see") == 0.0
    assert grade("nothing to see", without_boxes=1.0) == 1.0
    assert grade("<box>here</box>", without_boxes=1.0) == 0.0


def test_a_frame_s_unit_may_be_too_small_for_a_box() -> None:
    assert grade("<box>[500,500,504,600]</box>", "norm1000") == 0.0  # 0.8 pixels wide
    assert grade("<box>[500,500,505,600]</box>", "norm1000") == 1.0
    assert grade("<box>[500,500,504,600]</box>", "norm1000", min_side_px=0.5) == 1.0


def test_a_wrong_frame_shows() -> None:
    boxes = "<box>[0,0,500,500]</box><box>[500,500,1000,1000]</box>"
    assert grade(boxes, "norm1000") == 1.0
    assert grade(boxes, "orig_px") == 0.0


@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_the_whole_image_is_valid_in_every_frame_without_tolerance(width: int, height: int) -> None:
    size = Size(width, height)
    for frame, box in (("norm1000", "1000,1000"), ("model_px", "280,140"), ("orig_px", f"{width},{height}")):
        assert grade(f"<box>[0,0,{box}]</box>", frame, size, tolerance=0.0) == 1.0


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"tolerance": -0.1}, r"tolerance=-0.1.*0 or more"),
        ({"tolerance": math.nan}, r"tolerance=nan.*0 or more"),
        ({"min_side_px": math.inf}, r"min_side_px=inf.*0 or more"),
        ({"without_boxes": 2.0}, r"without_boxes=2.0.*between 0 and 1"),
    ],
)
def test_bad_parameters_are_named(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"box_valid\.{message}"):
        BoxValid(**params)
