import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.no_repeat import NoRepeat
from vgr_rl.grounding import ImageGeometry, Sample, Size, parse_trace

SIZE = Size(64, 64)
SAMPLE = Sample("7", "test", "Which?", "", "none", (), (), SIZE)


def grade(response: str, **params: Any) -> dict[str, float]:
    score = NoRepeat(**params)(parse_trace(response, ImageGeometry(SIZE, SIZE), "model_px", prefill=""), SAMPLE)
    assert score.status == "ok" and score.value == score.parts["no_repeat"]
    return score.parts


@pytest.mark.parametrize(
    ("response", "value", "rate"),
    [
        ("", 1.0, 0.0),
        ("...", 1.0, 0.0),
        ("A cat. A dog.", 1.0, 0.0),
        ("A cat. A cat.", 1.0, 1 / 2),
        ("A cat. A cat. A cat.", 0.0, 2 / 3),
        ("A cat. A cat. A dog. A dog.", 0.0, 2 / 4),
        ("A cat. a cat. A  cat. A cat!", 1.0, 0.0),
        ("A cat.\n\n A cat .A cat", 0.0, 2 / 3),
        ("<think>A cat. A cat. A cat", 1.0, 1 / 3),  # the tag is part of the first sentence
        ("At <box>[1,2,3,4]</box>. At <box>[1,2,3,5]</box>. At <box>[1,2,3,6]</box>.", 1.0, 0.0),
        ("cat cat cat cat cat cat cat", 1.0, 0.0),
    ],
)
def test_the_second_repeat_costs_everything(response: str, value: float, rate: float) -> None:
    assert grade(response) == pytest.approx({"no_repeat": value, "repeat_rate": rate})


def test_how_many_repeats_are_allowed_is_a_parameter() -> None:
    response = "A cat. " * 4
    assert [grade(response, allowed_repeats=allowed)["no_repeat"] for allowed in range(5)] == [0, 0, 0, 1, 1]


def test_other_characters_may_end_a_sentence() -> None:
    response = "A cat! A cat? A cat\u3002 A cat."
    assert grade(response)["no_repeat"] == 1.0
    assert grade(response, sentence_ends=".!?\u3002") == {"no_repeat": 0.0, "repeat_rate": 0.75}
    assert grade("A. B. A. B.", sentence_ends="B")["repeat_rate"] == 0.0


def by_hand(text: str) -> tuple[float, int]:
    """The released rule, sentence by sentence: 0 once two sentences have been there before."""
    seen: list[str] = []
    repeats = 0
    for piece in text.split("."):
        if piece.strip():
            repeats += piece.strip() in seen
            seen.append(piece.strip())
    return float(repeats < 2), repeats


@given(st.lists(st.sampled_from(["a", "b", "c", ".", ".", " ", "\n"]), max_size=40).map("".join) | st.text())
def test_any_text_is_graded_by_the_released_rule(text: str) -> None:
    value, repeats = by_hand(text)
    parts = grade(text)
    assert parts["no_repeat"] == value
    assert 0 <= parts["repeat_rate"] < 1
    assert (parts["repeat_rate"] > 0) == (repeats > 0)


@pytest.mark.parametrize("piece", ["a.", ".", "a cat. ", "a"])
def test_time_is_linear_in_the_text(piece: str) -> None:
    trace = parse_trace(piece * (2_000_000 // len(piece)), ImageGeometry(SIZE, SIZE), "model_px")
    start = time.process_time()
    NoRepeat(sentence_ends=".!?")(trace, SAMPLE)
    assert time.process_time() - start < 2  # comparing every pair of sentences takes hours


@pytest.mark.parametrize(
    ("params", "message"),
    [({"allowed_repeats": -1}, r"allowed_repeats=-1.*0 or more"), ({"sentence_ends": ""}, "sentence_ends is empty")],
)
def test_bad_parameters_are_named(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"no_repeat\.{message}"):
        NoRepeat(**params)
