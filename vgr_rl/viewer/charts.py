"""Small line charts of metrics over steps, as numbers that the page's template turns into SVG."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vgr_rl.benchmarks.summary import part_label, part_of
from vgr_rl.viewer.runs import Series

WIDTH, HEIGHT = 320, 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 312, 10, 126
_DASH = 8
_FLAT = 1e-3  # of the numbers: a smaller spread is drawn as the flat line that it is
_SMOOTH_FROM = 25  # points; shorter series are drawn as they are


@dataclass(frozen=True, slots=True)
class Line:
    """One series of a chart: label, SVG points of the values and of their moving average ("" when too short)."""

    label: str
    points: str
    smooth: str
    last: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart, ready to draw; coordinates are in a `WIDTH` x `HEIGHT` view box."""

    title: str
    note: str
    lines: tuple[Line, ...]
    y_ticks: tuple[tuple[float, str], ...]
    x_ticks: tuple[tuple[float, str], ...]
    data: str
    """JSON for the pointer: {"x": [x of each step], "steps": [...], "values": [[...] for each line]}."""


@dataclass(frozen=True, slots=True)
class ChartSpec:
    """What a chart shows: for each line its label and the metric names to look for, first found wins."""

    title: str
    note: str
    lines: tuple[tuple[str, tuple[str, ...]], ...]
    unit_range: bool = False
    """Whether values are shares: the axis then always covers 0 to 1."""


def _one(title: str, note: str, *metrics: str, unit_range: bool = False) -> ChartSpec:
    return ChartSpec(title, note, ((title, metrics),), unit_range)


REWARD_CHARTS = (
    _one("Reward", "Mean of all rollouts of a step.", "reward/score/mean", "critic/score/mean"),
    _one("Answers right", "Share of rollouts.", "reward/accuracy/mean", unit_range=True),
    ChartSpec(
        "Evidence overlap (IoU)",
        "Recall: true boxes found. Precision: drawn boxes that hit.",
        (("recall", ("reward/recall_iou/mean",)), ("precision", ("reward/precision_iou/mean",))),
        unit_range=True,
    ),
    _one("Format kept", "Share of rollouts that think, then answer.", "reward/format/mean", unit_range=True),
)

TRAINING_CHARTS = (
    _one("Boxes a response", "Rising means enumeration.", "evidence/boxes_per_response", "reward/boxes/mean"),
    _one("Response length", "Tokens.", "response/length/mean"),
    _one("Entropy", "Of the policy, nats a token; near 0 it no longer explores.", "actor/entropy"),
    _one(
        "Flat groups",
        "Share of groups whose rollouts all earn the same: nothing to learn from.",
        "group/zero_variance_rate",
        unit_range=True,
    ),
    _one(
        "Rollout / trainer agreement",
        "Correlation of token probabilities; near 1 when rollouts use the new weights.",
        "training/rollout_actor_probs_pearson_corr",
    ),
    _one("Gradient norm", "Before clipping.", "actor/grad_norm"),
    _one("Distance to the reference", "KL estimate.", "actor/kl_loss"),
    _one("Step time", "Seconds.", "timing_s/step"),
)

SFT_CHARTS = (
    _one("Training loss", "Cross entropy of the response, nats a token.", "train/loss"),
    _one("Validation loss", "The same on unseen samples.", "val/loss"),
    _one("Learning rate", "Warm-up, then cosine.", "train/lr"),
    _one("Gradient norm", "Before clipping.", "train/grad_norm"),
)


def charts(specs: tuple[ChartSpec, ...], metrics: Mapping[str, Series]) -> list[Chart]:
    """Return the charts whose metrics a run has, in the order of `specs`."""
    drawn: list[Chart] = []
    for spec in specs:
        found = [(label, next((metrics[n] for n in names if metrics.get(n)), None)) for label, names in spec.lines]
        series = [(label, values) for label, values in found if values]
        if series:
            drawn.append(draw(spec, series))
    return drawn


def run_specs(metrics: Iterable[str]) -> tuple[ChartSpec, ...]:
    """Return what to draw of a run: the known charts, and one for each further part of its reward."""
    drawn = {name for spec in (*REWARD_CHARTS, *TRAINING_CHARTS) for _, names in spec.lines for name in names}
    parts = sorted({part for name in metrics if name not in drawn and (part := part_of(name))})
    others = tuple(_one(part_label(part), "Mean.", f"reward/{part}/mean") for part in parts)
    return REWARD_CHARTS + others + TRAINING_CHARTS + SFT_CHARTS


def compared_charts(before: Mapping[str, Series], after: Mapping[str, Series], sides: tuple[str, str]) -> list[Chart]:
    """Return a chart for each metric that both runs have, with a line for each run."""
    drawn: list[Chart] = []
    for spec in run_specs([*before, *after]):
        for label, names in spec.lines:
            name = next((name for name in names if before.get(name) and after.get(name)), None)
            if name:
                title = spec.title if len(spec.lines) == 1 else f"{spec.title}, {label}"
                shown = ChartSpec(title, spec.note if len(spec.lines) == 1 else "", (), spec.unit_range)
                drawn.append(draw(shown, [(sides[0], before[name]), (sides[1], after[name])]))
    return drawn


def draw(spec: ChartSpec, series: list[tuple[str, Series]]) -> Chart:
    """Lay out one chart; every series has at least one point."""
    steps = sorted({step for _, values in series for step, _ in values})
    numbers = [value for _, values in series for _, value in values]
    low, high = (0.0, 1.0) if spec.unit_range else (min(numbers), max(numbers))
    bottom, top, ticks, labels = _axis(min(low, *numbers), max(high, *numbers))
    first, last = steps[0], max(steps[-1], steps[0] + 1)

    def x(step: float) -> float:
        return round(_LEFT + (step - first) / (last - first) * (_RIGHT - _LEFT), 1)

    def y(value: float) -> float:
        return round(_BOTTOM - (value - bottom) / (top - bottom) * (_BOTTOM - _TOP), 1)

    def path(values: Series) -> str:
        if len(values) == 1:  # a line of one point has no length: draw a dash
            (step, value), half = values[0], _DASH / 2
            return f"{x(step) - half},{y(value)} {x(step) + half},{y(value)}"
        return " ".join(f"{x(step)},{y(value)}" for step, value in values)

    by_step = [dict(values) for _, values in series]
    pointer = {
        "x": [x(step) for step in steps],
        "steps": steps,
        "values": [[_short(found[step]) if step in found else None for step in steps] for found in by_step],
    }
    return Chart(
        title=spec.title,
        note=spec.note,
        lines=tuple(
            Line(
                label,
                path(values),
                path(moving_average(values)) if len(values) >= _SMOOTH_FROM else "",
                _short(values[-1][1]),
            )
            for label, values in series
        ),
        y_ticks=tuple(zip(map(y, ticks), labels, strict=True)),
        x_ticks=tuple((x(step), str(step)) for step in dict.fromkeys((first, steps[len(steps) // 2], steps[-1]))),
        data=json.dumps(pointer),
    )


def _axis(low: float, high: float) -> tuple[float, float, list[float], list[str]]:
    """Return bottom, top, ticks and their labels; what hardly changes has one tick, where it is."""
    size = max(abs(low), abs(high))
    if high - low > _FLAT * size:
        ticks = nice_ticks(low, high)
        return ticks[0], ticks[-1], ticks, tick_labels(ticks)
    middle = (low + high) / 2
    return middle - (size or 1.0), middle + (size or 1.0), [middle], [_short(middle)]


def nice_ticks(low: float, high: float) -> list[float]:
    """Return three to six round numbers that enclose `low` and `high`, which differ."""
    raw = (high - low) / 3
    magnitude = 10 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= raw * 0.999)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def tick_labels(ticks: list[float]) -> list[str]:
    """Write ticks with the digits that tell them apart."""
    step = ticks[1] - ticks[0]
    if max(map(abs, ticks)) < 0.001 or max(map(abs, ticks)) >= 100_000:
        return [_power(tick) for tick in ticks]
    digits = next((n for n in range(9) if abs(round(step, n) - step) < step * 1e-6), 9)
    return [f"{tick:.{digits}f}" for tick in ticks]


def moving_average(values: Series) -> Series:
    """Return the centred mean over about a tenth of the series."""
    half = max(1, len(values) // 20)
    smooth: Series = []
    for index, (step, _) in enumerate(values):
        window = values[max(0, index - half) : index + half + 1]
        smooth.append((step, sum(value for _, value in window) / len(window)))
    return smooth


def _short(value: float) -> str:
    if value != 0 and (abs(value) < 0.001 or abs(value) >= 100_000):
        return _power(value)
    return f"{value:.5g}"


def _power(value: float) -> str:
    digits, exponent = f"{value:.1e}".split("e")
    return f"{digits.removesuffix('.0')}e{int(exponent)}" if value else "0"
