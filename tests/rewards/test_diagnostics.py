import itertools
import random
import time
import timeit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards import diagnostics
from rewards.diagnostics import MIN_RESPONSES, correlations, diagnose, warnings
from vgr_rl.grounding import Box, ImageGeometry, Sample, Size, Target, parse_trace

SIZE = Size(100, 100)
TARGET: Box = (0.0, 0.0, 10.0, 10.0)


def numbers(response: str, *targets: Box) -> dict[str, float]:
    sample = Sample("7", "test", "Where?", "", "none", (), tuple(map(Target, targets)), SIZE)
    return diagnose(parse_trace(response, ImageGeometry(SIZE, SIZE), "orig_px"), sample)


def box(x1: int, y1: int, x2: int, y2: int) -> str:
    return f"<box>[{x1},{y1},{x2},{y2}]</box>"


GOOD, OTHER = box(0, 0, 10, 10), box(50, 50, 60, 60)


def test_an_honest_response_has_no_sign_of_anything() -> None:
    assert numbers(f"a cup {GOOD}</think><answer>B</answer>", TARGET) == {
        "boxes": 1.0,
        "malformed_boxes": 0.0,
        "duplicate_rate": 0.0,
        "whole_image_rate": 0.0,
        "unreferenced_rate": 0.0,
        "answer_before_evidence": 0.0,
        "recall_without_precision": 0.0,
    }


def test_without_boxes_only_their_number_is_known() -> None:
    assert numbers("so</think><answer>B</answer>", TARGET) == {"boxes": 0.0, "malformed_boxes": 0.0}


def test_boxes_in_another_notation_are_counted_as_malformed() -> None:
    text = "a <box>[10, 10, 20, 20]</box> b <box>[1.5,2,30,40]</box> c <box>[9,9,1,1]</box></think><answer>B</answer>"
    assert numbers(text, TARGET) == {"boxes": 0.0, "malformed_boxes": 3.0}
    assert "docs/rewards.md" in warnings({"malformed_boxes": 3.0})["malformed_boxes"]


def test_copies_of_a_box_are_duplicates() -> None:
    assert numbers(f"a {GOOD} a {GOOD} a {box(0, 0, 10, 9)} a {OTHER}")["duplicate_rate"] == pytest.approx(1 / 4)


def test_whole_images_are_boxes_over_nine_tenths_of_it_whatever_leaves_it() -> None:
    for coordinates, rate in (((0, 0, 100, 91), 1.0), ((0, 0, 100, 90), 0.0), ((0, 0, 9000, 9000), 1.0)):
        assert numbers(f"all {box(*coordinates)}")["whole_image_rate"] == rate
    assert numbers(f"half outside {box(50, 0, 250, 100)}")["whole_image_rate"] == 0.0


@pytest.mark.parametrize(
    ("response", "value"),
    [
        (f"a {GOOD}</think><answer>B</answer>", 0.0),
        (f"</think><answer>B</answer> a {GOOD}", 1.0),
        (f"</think><answer>B {GOOD}</answer>", 1.0),
        (f"</think><answer>B {GOOD}", 1.0),
        (f"a {GOOD}", None),
    ],
)
def test_an_answer_before_the_first_box_rests_on_nothing(response: str, value: float | None) -> None:
    assert numbers(response).get("answer_before_evidence") == value


@pytest.mark.parametrize(
    ("response", "rate"),
    [
        (f"a cup {GOOD} and a car {OTHER}", 0.0),
        (f"{GOOD}{OTHER}", 1.0),
        (f"{GOOD}, {OTHER}", 1.0),
        (f"a cup {GOOD} 12 {OTHER}", 0.5),
        (f"[SEG]{GOOD}<think>{OTHER}", 1.0),
        (f"杯子{GOOD}é{OTHER}", 0.0),
    ],
)
def test_a_box_without_a_letter_before_it_is_unreferenced(response: str, rate: float) -> None:
    assert numbers(response)["unreferenced_rate"] == rate


def test_enumeration_shows_as_recall_without_precision() -> None:
    assert numbers(f"a {GOOD} b {OTHER} c {OTHER} d {OTHER}", TARGET)["recall_without_precision"] == pytest.approx(
        3 / 4
    )
    assert numbers(f"a {GOOD}", TARGET, (50, 50, 60, 60))["recall_without_precision"] == 0.0
    assert "recall_without_precision" not in numbers(f"a {GOOD}")


@given(st.lists(st.sampled_from([GOOD, OTHER, "<answer>", "</answer>", "a", "<box>", " "])).map("".join) | st.text())
def test_any_response_is_measured_within_bounds(response: str) -> None:
    measured = numbers(response, TARGET)
    assert measured.pop("boxes") >= 0 and measured.pop("malformed_boxes") >= 0
    assert all(0 <= value <= 1 for value in measured.values())


def test_time_is_linear_in_text() -> None:
    start = time.process_time()
    for piece in ("<think>", "<box>", "1", " "):
        assert numbers(piece * 200_000 + "</box>" + GOOD)["unreferenced_rate"] == 1.0
    numbers((" " * 1000 + GOOD) * 4000, TARGET)
    assert time.process_time() - start < 5


@settings(deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 3), st.integers(0, 3), st.integers(8, 40), st.integers(8, 40)]), max_size=8))
def test_few_and_many_boxes_have_the_same_copies(corners: list[tuple[int, int, int, int]]) -> None:
    response = "a " + "".join(itertools.starmap(box, corners))
    with pytest.MonkeyPatch.context() as patch:
        few = numbers(response)
        patch.setattr(diagnostics, "_FEW", 0)
        assert numbers(response) == few


def test_a_response_is_measured_about_as_fast_as_it_is_parsed() -> None:
    """It happens to every rollout: 8 boxes near 4 targets in 1,500 characters."""
    text = "the small red car stands left of a tall tree near the road and its door is open so we look at it more " * 2
    corners = [(90 * (n % 4) + n, 60 + n, 90 * (n % 4) + 80 - n, 200 + n) for n in range(8)]
    response = " ".join(f"{text[:160]} {box(*corner)}" for corner in corners) + "</think><answer>B</answer>"
    size = Size(400, 300)
    sample = Sample("7", "test", "Where?", "", "none", (), tuple(Target(corner) for corner in corners[:4]), size)
    trace = parse_trace(response, ImageGeometry(size, size), "orig_px")
    assert len(response) > 1500 and len(trace.boxes) == 8
    ways = (lambda: parse_trace(response, ImageGeometry(size, size), "orig_px"), lambda: diagnose(trace, sample))
    rounds = [[timeit.timeit(way, number=20, timer=time.process_time) for way in ways] for _ in range(40)]
    parse, measure = map(min, zip(*rounds, strict=True))
    assert measure < 2 * parse


def test_correlations_are_pearson_s() -> None:
    numpy = pytest.importorskip("numpy")
    rng = random.Random(0)
    a = [rng.random() for _ in range(50)]
    b = [x + rng.random() for x in a]
    found = correlations({"a": a, "b": b, "flat": [1.0] * 50})
    assert found == {("a", "b"): pytest.approx(numpy.corrcoef(a, b)[0, 1])}


def test_correlations_skip_gaps_and_need_enough_responses() -> None:
    rising = [float(n) for n in range(MIN_RESPONSES)]
    gap = [*rising[:-1], float("nan")]
    assert correlations({"a": rising, "b": rising}) == {("a", "b"): 1.0}
    assert correlations({"a": rising, "b": gap}) == {}
    assert correlations({"a": [*rising, 5.0], "b": [*rising, float("nan")]}) == {("a", "b"): 1.0}
    assert correlations({}) == {}
    for scale in (1e-200, 1e200):
        assert correlations({"a": [-scale * n for n in rising], "b": rising}) == {("a", "b"): -1.0}
    with pytest.raises(ValueError, match="equally long"):
        correlations({"a": rising, "b": rising[1:]})


def test_every_limit_is_on_a_number_that_is_measured_and_names_it() -> None:
    measured = numbers(f"a {GOOD}</think><answer>B</answer>", TARGET)
    for limit in diagnostics.WARNINGS:
        assert limit.metric in measured
        assert warnings({limit.metric: limit.above}) == {}
        ((metric, message),) = warnings({limit.metric: limit.above + 0.5}).items()
        assert metric == limit.metric
        assert message.startswith(f"{limit.metric} is ") and limit.advice in message
        assert warnings({limit.metric: limit.above + 0.5}, limits={limit.metric: limit.above + 1}) == {}


def test_terms_that_pull_against_each_other_are_named_with_their_knobs() -> None:
    found = warnings({}, {("accuracy", "length"): -0.7, ("accuracy", "format"): -0.4, ("a", "b"): 0.9})
    assert list(found) == ["accuracy~length"]
    assert "reward.terms.length.weight" in found["accuracy~length"]
