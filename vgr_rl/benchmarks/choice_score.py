"""Scores of a benchmark whose questions have one answer: the official numbers, and what they do not show."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple, TypeVar

from vgr_rl.benchmarks.answers import Convention
from vgr_rl.benchmarks.choice import Benchmark, Item
from vgr_rl.benchmarks.intervals import bootstrap
from vgr_rl.benchmarks.predictions import Prediction
from vgr_rl.grounding import ImageGeometry, Size, Trace, best_iou, parse_trace

Key = TypeVar("Key", bound=Hashable)

_RAW = ImageGeometry(Size(1, 1), Size(1, 1))
_TAGS = ("<think>", "</think>", "<answer>", "<box>")


class Graded(NamedTuple):
    """One question with its response, graded.

    Attributes:
        item: the question.
        correct: whether the answer is right; None where there is none to grade.
        iou: mean over true boxes of the best IoU with a predicted one; None without true boxes.
        precision: the mean over predicted boxes of the best IoU with a true one, 0 without any; None without true ones.
        boxes: valid predicted boxes.
        malformed: `<box>` that are none.
        truncated: whether the response was cut off; None without a response.
    """

    item: Item
    correct: bool | None
    iou: float | None
    precision: float | None
    boxes: int = 0
    malformed: int = 0
    truncated: bool | None = None

    @property
    def dual(self) -> float | None:
        """The dual IoU of TreeVGR's reward: the mean of recall and precision."""
        return None if self.iou is None or self.precision is None else (self.iou + self.precision) / 2


def grade(
    items: Sequence[Item], predictions: Mapping[str, Prediction], benchmark: Benchmark, convention: Convention
) -> list[Graded]:
    """Grade the response to each item; one without a prediction is wrong and hits no box.

    Boxes are parsed by the authors' rule (`parse_trace`); by `vlmevalkit` only those inside `<think>…</think>` count
    where a response has both tags. With `model_size` they are mapped from pixels of that size to the stored image,
    whose size is read from its header; else they are taken for pixels of the stored image.

    Raises:
        ValueError: if an image is needed for its size and cannot be read.
    """
    return [_grade(item, predictions.get(item.key), benchmark, convention) for item in items]


def summarise(graded: Sequence[Graded], categories: Iterable[str], seed: int = 0) -> dict[str, Any]:
    """Return `{overall, miou, per_category: {name: {n, correct, accuracy, miou}}, extra}`, all shares from 0 to 1.

    The accuracy of items that are asked in several cycles is that of each cycle, averaged over the cycles. What is
    unknown is None: `miou` without true boxes, and everything about responses where there is none.

    Args:
        graded: at least one.
        categories: their order in the result; others follow.
        seed: of the bootstrap.
    """
    found = _grouped(graded, [row.item.category for row in graded])
    by_category = {name: found[name] for name in (*categories, *found) if name in found}
    by_group = _grouped(graded, [row.item.category.partition("/")[0] for row in graded])
    answered = [row for row in graded if row.truncated is not None]
    openers = sum(row.boxes + row.malformed for row in answered)
    extra: dict[str, Any] = {
        "n": len(graded),
        "precision_iou": _mean([row.precision for row in graded]),
        "dual_iou": _mean([row.dual for row in graded]),
        "boxes_per_answer": _mean([row.boxes for row in answered]),
        "malformed_share": sum(row.malformed for row in answered) / openers if openers else None,
        "truncated_share": _mean([row.truncated for row in answered]),
        "intervals": {
            **_intervals(graded, seed),
            "per_category": {name: {"n": len(rows), **_intervals(rows, seed)} for name, rows in by_category.items()},
        },
    }
    if any("/" in name for name in by_category):
        extra["groups"] = {name: _scores(rows) for name, rows in by_group.items()}
    if any(row.item.cycle for row in graded):
        extra["cycles"] = {
            cycle: {"all": _accuracy(rows)}
            | {name: _accuracy(own) for name, own in _grouped(rows, [row.item.category for row in rows]).items()}
            for cycle, rows in _grouped(graded, [row.item.cycle for row in graded]).items()
        }
        extra["all_cycles_right"] = fmean(all(row.correct for row in rows) for rows in _questions(graded))
    return {
        "overall": _accuracy(graded),
        "miou": _mean([row.iou for row in graded]),
        "per_category": {name: _scores(rows) for name, rows in by_category.items()},
        "extra": extra,
    }


def _grade(item: Item, prediction: Prediction | None, benchmark: Benchmark, convention: Convention) -> Graded:
    targets = item.targets_orig_px
    if prediction is None:
        graded = benchmark.is_right(item, "", convention) is not None
        return Graded(item, False if graded else None, *((0.0, 0.0) if targets else (None, None)))
    trace = trace_of(item, prediction)
    start, stop = 0, len(trace.text)
    if convention == "vlmevalkit" and trace.think_span and "<think>" in prediction.response:
        start, stop = trace.think_span
    preds = [box.box_orig_px for box in trace.boxes if start <= box.span[0] and box.span[1] <= stop]
    of_preds, of_targets = best_iou(preds, targets)
    return Graded(
        item,
        correct=benchmark.is_right(item, prediction.response, convention),
        iou=fmean(of_targets) if targets else None,
        precision=(fmean(of_preds) if preds else 0.0) if targets else None,
        boxes=len(preds),
        malformed=trace.malformed,
        truncated=_unfinished(prediction.response, trace) if prediction.truncated is None else prediction.truncated,
    )


def trace_of(item: Item, prediction: Prediction) -> Trace:
    """Return the parsed response, its boxes in pixels of the stored image.

    Raises:
        ValueError: if the image is needed for its size and cannot be read.
    """
    if prediction.model_size is None:
        return parse_trace(prediction.response, _RAW, "orig_px")
    return parse_trace(prediction.response, ImageGeometry(item.stored_size(), prediction.model_size), "model_px")


def _unfinished(response: str, trace: Trace) -> bool:
    """Say whether a response that writes tags ends before its answer does; used where a row does not say."""
    return trace.answer_span is None and any(tag in response for tag in _TAGS)


def _scores(rows: Sequence[Graded]) -> dict[str, Any]:
    return {
        "n": len(rows),
        "correct": sum(row.correct is True for row in rows),
        "accuracy": _accuracy(rows),
        "miou": _mean([row.iou for row in rows]),
    }


def _accuracy(rows: Sequence[Graded]) -> float | None:
    cycles = _grouped(rows, [row.item.cycle for row in rows])
    return _mean([_mean([row.correct for row in cycle]) for cycle in cycles.values()])


def _intervals(rows: Sequence[Graded], seed: int) -> dict[str, Any]:
    questions = _questions(rows)
    right = [sum(row.correct is True for row in question) for question in questions]
    known = [sum(row.correct is not None for row in question) for question in questions]
    ious = [row.iou for row in rows if row.iou is not None]
    return {
        "accuracy": bootstrap(right, known, seed),
        "miou": bootstrap(ious, [1] * len(ious), seed) if ious else None,
    }


def _questions(rows: Sequence[Graded]) -> list[list[Graded]]:
    """Return the rows question by question: all cycles of one, in the order of their appearance.

    The k-th row of a cycle with some question and options belongs to the k-th of the other cycles with the same.
    """
    times: Counter[Hashable] = Counter()
    keys: list[Hashable] = []
    for row in rows:
        question = (row.item.question, frozenset(row.item.options.values()))
        times[question, row.item.cycle] += 1
        keys.append((question, times[question, row.item.cycle]) if row.item.cycle else row.item.key)
    return list(_grouped(rows, keys).values())


def _grouped(rows: Sequence[Graded], keys: Sequence[Key]) -> dict[Key, list[Graded]]:
    groups: defaultdict[Key, list[Graded]] = defaultdict(list)
    for row, key in zip(rows, keys, strict=True):
        groups[key].append(row)
    return dict(groups)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
