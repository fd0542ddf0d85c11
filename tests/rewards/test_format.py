import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards import Format
from rewards.format import SegFormat
from vgr_rl.grounding import ImageGeometry, Sample, Size, parse_trace

SIZE = Size(64, 64)
SAMPLE = Sample("7", "test", "Which?", "B", "choice", ("x", "y"), (), SIZE)
TAGS = ["<think>", "</think>", "<answer>", "</answer>"]


def grade(response: str, prefill: str = "<think>") -> float:
    trace = parse_trace(response, ImageGeometry(SIZE, SIZE), "model_px", prefill=prefill)
    score = Format()(trace, SAMPLE)
    assert score.status == "ok" and score.parts == {"format": score.value}
    return score.value


@pytest.mark.parametrize(
    "response",
    [
        "so</think><answer>B</answer>",
        "<think>so</think><answer>B</answer>",
        " \n<think>so</think>\n\n<answer>B</answer> \n",
    ]
    + ["<box>[1,2,3,4]</box></think><answer>B</answer>", "</think><answer></answer>"],
)
def test_right_shapes(response: str) -> None:
    assert grade(response) == 1.0


@pytest.mark.parametrize(
    "response",
    ["", "so", "so</think>", "so</think><answer>B", "so<answer>B</answer>", "<answer>B</answer>so</think>"]
    + ["so</think> and <answer>B</answer>", "so</think><answer>B</answer>.", "x<think>so</think><answer>B</answer>"]
    + ["so</think><answer>B</answer><answer>B</answer>", "so</think></think><answer>B</answer>"]
    + ["so<answer>A</answer></think><answer>B</answer>", "so<answer>B</answer></think>", "so</think></answer>B<answer>"]
    + [
        "a</think><think>b</think><answer>B</answer>",
        "so</think><answer><answer>B</answer>",
        "so</THINK><answer>B</answer>",
    ]
    + [
        "so</think><answer>B</think></answer>",
        "so</think><answer>B<think></answer>",
        "so</think><answer>B</answer></answer>",
    ],
)
def test_wrong_shapes(response: str) -> None:
    assert grade(response) == 0.0


def test_without_a_prefill_the_model_has_to_open_its_thinking_itself() -> None:
    assert grade("so</think><answer>B</answer>", prefill="") == 0.0
    assert grade("<think>so</think><answer>B</answer>", prefill="") == 1.0


@settings(max_examples=300)
@given(
    st.lists(st.sampled_from([*TAGS, *TAGS, "x", " "]), max_size=8).map("".join) | st.permutations(TAGS).map("".join)
)
def test_the_shape_is_the_one_of_a_strict_regular_expression(text: str) -> None:
    strict = re.fullmatch(r"\s*<think>(.*)</think>\s*<answer>(.*)</answer>\s*", text, re.DOTALL)
    once = all(text.count(tag) == 1 for tag in TAGS)
    assert grade(text, prefill="") == float(bool(strict) and once)


@pytest.mark.parametrize(
    ("response", "value"),
    [
        ("a cup [SEG]</think><answer>that cup [SEG]</answer>", 1.0),
        ("a cup [SEG] and [SEG]</think>\n\n<answer>[SEG], [SEG]</answer>.", 1.0),
        ("a cup</think><answer>that cup [SEG]</answer>", 0.5),
        ("a cup</think> [SEG] <answer>that cup [SEG]</answer>", 0.5),
        ("a cup</think><answer>that cup [SEG]</answer>[SEG]", 0.5),
        ("a cup [SEG] <answer>that cup [SEG]</answer>", 0.5),
        ("<answer>that cup [SEG]</answer> a cup [SEG]</think>", 0.5),
        ("a cup <answer>that cup [SEG]</answer></think>", 0.5),
        ("a cup [SEG]</think><answer>that cup</answer>", 0.0),
        ("a cup [SEG]</think><answer>that cup [SEG]", 0.0),
        ("a cup [SEG]</think><answer>[SEG]</answer><answer>[SEG]</answer>", 0.0),
        ("a cup [seg]</think><answer>that cup [seg]</answer>", 0.0),
        ("", 0.0),
    ],
)
def test_masks_are_named_in_the_answer_and_in_the_thinking_before_it(response: str, value: float) -> None:
    score = SegFormat()(parse_trace(response, ImageGeometry(SIZE, SIZE), "norm1000"), SAMPLE)
    assert (score.value, score.parts, score.status) == (value, {"seg_format": value}, "ok")
