import json
import math

from hypothesis import assume, given
from hypothesis import strategies as st

from vgr_rl.viewer.charts import (
    HEIGHT,
    WIDTH,
    ChartSpec,
    charts,
    compared_charts,
    draw,
    nice_ticks,
    run_specs,
    tick_labels,
)

_finite = st.floats(-1e9, 1e9, allow_nan=False).map(lambda value: 0.0 if abs(value) < 1e-9 else value)
_SPEC = ChartSpec("Loss", "", (("loss", ("loss",)),))


@given(_finite, _finite)
def test_ticks_are_few_and_enclose_the_values(a: float, b: float):
    assume(a != b)
    low, high = min(a, b), max(a, b)
    ticks = nice_ticks(low, high)
    slack = 1e-6 * max(1.0, abs(low), abs(high))
    assert ticks[0] <= low + slack and ticks[-1] >= high - slack
    assert 2 <= len(ticks) <= 6 and ticks == sorted(set(ticks))


@given(st.lists(_finite, min_size=1, max_size=80))
def test_every_point_stays_inside_the_view(values: list[float]):
    chart = draw(_SPEC, [("loss", list(enumerate(values)))])
    for pair in f"{chart.lines[0].points} {chart.lines[0].smooth}".split():
        x, y = map(float, pair.split(","))
        assert 0 <= x <= WIDTH and -1 <= y <= HEIGHT and math.isfinite(x + y)


def test_a_higher_value_is_drawn_higher():
    chart = draw(_SPEC, [("loss", [(1, 5.0), (2, 7.0)])])
    first, second = (float(pair.split(",")[1]) for pair in chart.lines[0].points.split())
    assert second < first


def test_close_ticks_have_labels_that_differ():
    for low, high in ((0.99, 0.9912), (1e-6, 3e-6), (0.0, 1.0), (120_000.0, 480_000.0)):
        labels = tick_labels(nice_ticks(low, high))
        assert len(set(labels)) == len(labels) and max(map(len, labels)) <= 7


def test_what_does_not_change_is_a_line_at_one_labelled_value():
    for value, label in (
        (1.0, "1"),
        (0.0, "0"),
        (1e-4, "1e-4"),
        (0.9999999999, "1"),
        (0.99995, "0.99995"),
        (-3.0, "-3"),
    ):
        chart = draw(_SPEC, [("loss", [(step, value * (1 + step * 1e-12)) for step in range(5)])])
        ((at, text),) = chart.y_ticks
        assert text == label and chart.lines[0].last == label
        assert {float(pair.split(",")[1]) for pair in chart.lines[0].points.split()} == {at}


def test_a_single_point_is_a_dash_that_can_be_seen():
    chart = draw(_SPEC, [("loss", [(512, 0.4)])])
    (left, y), (right, same_y) = (map(float, pair.split(",")) for pair in chart.lines[0].points.split())
    assert y == same_y and right - left >= 4


def test_only_charts_with_data_are_drawn_and_the_first_known_name_wins():
    metrics = {"critic/score/mean": [(1, 1.0)], "reward/score/mean": [(1, 2.0)], "unknown": [(1, 3.0)]}
    (chart,) = charts(run_specs(metrics), metrics)
    assert (chart.title, chart.lines[0].last) == ("Reward", "2")


def test_lines_with_different_steps_share_one_axis():
    chart = draw(_SPEC, [("a", [(1, 0.0), (2, 1.0)]), ("b", [(2, 0.5), (4, 0.5)])])
    pointer = json.loads(chart.data)
    assert pointer["steps"] == [1, 2, 4]
    assert pointer["values"] == [["0", "1", None], [None, "0.5", "0.5"]]


def test_every_part_of_the_reward_has_a_chart_and_known_ones_have_only_one():
    names = ("accuracy", "recall_iou", "precision_iou", "format", "dual_iou", "boxes", "brevity", "judge/extra")
    metrics = {f"reward/{name}/mean": [(1, 0.5), (2, 0.6)] for name in names} | {"reward/brevity/std": [(1, 0.1)]}
    titles = [chart.title for chart in charts(run_specs(metrics), metrics)]
    assert len(titles) == len(set(titles))
    assert {"Answers right", "Dual IoU", "Brevity", "Judge/extra", "Boxes a response", "Format kept"} <= set(titles)


def test_two_runs_share_charts_of_what_both_have():
    before = {"reward/score/mean": [(1, 1.0)], "reward/recall_iou/mean": [(1, 0.2)], "actor/entropy": [(1, 2.0)]}
    after = {"reward/score/mean": [(1, 3.0)], "reward/recall_iou/mean": [(1, 0.4)]}
    drawn = compared_charts(before, after, ("a", "b"))
    assert [(chart.title, [(line.label, line.last) for line in chart.lines]) for chart in drawn] == [
        ("Reward", [("a", "1"), ("b", "3")]),
        ("Evidence overlap (IoU), recall", [("a", "0.2"), ("b", "0.4")]),
    ]
