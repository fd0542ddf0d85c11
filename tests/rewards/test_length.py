import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards import Score
from rewards.length import Length
from vgr_rl.grounding import ImageGeometry, Sample, Size, parse_trace

SIZE = Size(64, 64)
SAMPLE = Sample("7", "test", "Which?", "", "none", (), (), SIZE)


def grade(chars: int, prefill: str = "", **params: Any) -> Score:
    trace = parse_trace("x" * chars, ImageGeometry(SIZE, SIZE), "model_px", prefill=prefill)
    return Length(**params)(trace, SAMPLE)


@pytest.mark.parametrize(
    ("chars", "value"), [(0, 0.0), (60, 0.0), (61, -0.025), (80, -0.5), (99, -0.975), (100, -1.0), (101, -1.0)]
)
def test_the_punishment_grows_over_the_buffer(chars: int, value: float) -> None:
    score = grade(chars, max_chars=100, buffer_chars=40)
    assert score.status == "ok"
    assert score.value == pytest.approx(value)
    assert score.parts == {"length": score.value, "response_chars": chars}
    assert math.copysign(1, score.value) == (-1 if value else 1)  # never -0.0


@given(st.integers(0, 300), st.integers(1, 150), st.integers(0, 150))
def test_the_value_is_the_formula_of_dapo(chars: int, buffer_chars: int, free_chars: int) -> None:
    max_chars = free_chars + buffer_chars
    if chars <= max_chars - buffer_chars:
        expected = 0.0
    elif chars <= max_chars:
        expected = ((max_chars - buffer_chars) - chars) / buffer_chars
    else:
        expected = -1.0
    assert grade(chars, max_chars=max_chars, buffer_chars=buffer_chars).value == pytest.approx(expected)


def test_a_restored_prefill_counts_as_if_the_model_had_written_it() -> None:
    assert grade(3, prefill="<think>").parts["response_chars"] == 10


def test_the_default_leaves_a_usual_response_alone() -> None:
    assert grade(1500).value == grade(6144).value == 0.0
    assert grade(7168).value == -0.5
    assert grade(8192).value == grade(10**6).value == -1.0


@pytest.mark.parametrize("params", [{"buffer_chars": 0}, {"buffer_chars": 9000}, {"max_chars": 100}])
def test_bad_parameters_are_named(params: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"length\.buffer_chars=\d+, length\.max_chars=\d+.*is needed"):
        Length(**params)
