"""VRT-Bench (arXiv 2512.05091): 304 questions whose reasoning and answer have to point at objects with masks."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from rewards.matching import one_to_one
from vgr_rl.benchmarks.intervals import bootstrap
from vgr_rl.benchmarks.loading import load_questions
from vgr_rl.benchmarks.predictions import Prediction
from vgr_rl.benchmarks.tsv import ImageSource
from vgr_rl.data.records import RowError
from vgr_rl.data.schema import Row, encoded_bytes, read_samples, resolve_image
from vgr_rl.data.tfrecord import parse_example, read_records, record_at
from vgr_rl.grounding import ImageGeometry, Rle, Size, Trace, check_rle, parse_trace, rle_iou

NAME, TITLE = "vrt_bench", "VRT-Bench"
HUB = ("HarborYuan/VRT-Eval", "vrt_eval.tfrecord")
SAMPLES = 304
CLASSES: Mapping[str, int] = {"#visf": 126, "#loc": 132, "#comp": 102, "#func": 128}
SECTIONS = ("reasoning", "answer")

_LOCATED = 0.5
_NO_GEOMETRY = ImageGeometry(Size(1, 1), Size(1, 1))


@dataclass(frozen=True, slots=True)
class VrtItem:
    """One question.

    Attributes:
        key: names the question in files of predictions.
        question: the text.
        classes: what kinds of question it is.
        masks: the true masks of each section, an object as often as it was labelled.
        image: the encoded image.
    """

    key: str
    question: str
    classes: tuple[str, ...]
    masks: Mapping[str, tuple[Rle, ...]]
    image: ImageSource


class VrtGraded(NamedTuple):
    """One question with its response, graded.

    Attributes:
        item: the question.
        ious: of each section, one IoU for each true mask.
        predicted: of each section, how many masks were predicted.
        answer_spans: how many `<answer>…</answer>` the response has, 2 for several; None without a response.
        unmasked: `[SEG]` without a mask.
    """

    item: VrtItem
    ious: Mapping[str, list[float]]
    predicted: Mapping[str, int]
    answer_spans: int | None
    unmasked: int


def load(path: Path) -> list[VrtItem]:
    """Read and check the TFRecord file, whose pictures stay in it, or a parquet file of samples with masks.

    Raises:
        ValueError: if the file is no sound TFRecord file, or listing every record that is no question of VRT-Bench.
    """
    if path.suffix == ".parquet":
        return load_questions(path, TITLE, SAMPLES, read_samples(path), partial(_of_sample, path.parent))

    def read(record: tuple[int, bytes]) -> VrtItem:
        start, data = record
        return parse_item(parse_example(data), partial(_image, path, start))

    return load_questions(path, TITLE, SAMPLES, read_records(path), read, first=0)


def _of_sample(folder: Path, row: Row) -> VrtItem:
    sample = row.sample
    sections = {"evidence": "reasoning", "answer": "answer"}
    masks: dict[str, tuple[Rle, ...]] = dict.fromkeys(SECTIONS, ())
    for target in sample.targets:
        if target.mask_rle is None:
            raise RowError("targets", target.name, "has no mask")
        masks[sections[target.role]] += (target.mask_rle,)
    if len(row.images) != 1:
        raise RowError("images", len(row.images), "must be one")
    classes = tuple(map(str, sample.extra.get("classes", ())))
    image = partial(encoded_bytes, resolve_image(row.images[0], folder))
    return VrtItem(sample.id, sample.question, classes, masks, image)


def parse_item(features: Mapping[str, Any], image: ImageSource) -> VrtItem:
    """Check the features of a record and return its question.

    Raises:
        ValueError: naming the feature that is missing or wrong.
    """
    objects = _objects(_text(features, "objects_info_json"))
    masks = {}
    for section in SECTIONS:
        name = f"human_labeled_{section[0]}_objs"
        ids = features.get(name, [])
        if unknown := [number for number in ids if number not in objects]:
            raise RowError(name, unknown, f"has no such object; there are {sorted(objects)}")
        masks[section] = tuple(objects[number] for number in ids)
    if not features.get("image"):
        raise RowError("image", None, "is empty")
    classes = tuple(dict.fromkeys(name.decode() for name in features.get("class_ids", [])))
    return VrtItem(_text(features, "key"), _text(features, "question"), classes, masks, image)


def differences(items: Sequence[VrtItem]) -> list[str]:
    """Say in what the items differ from the published counts; nothing for the whole benchmark."""
    found = Counter(name for item in items for name in item.classes)
    wrong = [f"{len(items)} samples, published {SAMPLES}"] if len(items) != SAMPLES else []
    names = [name for name in (*CLASSES, *sorted(found.keys() - CLASSES.keys())) if found[name] != CLASSES.get(name, 0)]
    return wrong + [f"class_ids={name}: {found[name]} samples, published {CLASSES.get(name, 0)}" for name in names]


def grade(items: Sequence[VrtItem], predictions: Mapping[str, Prediction]) -> list[VrtGraded]:
    """Grade the masks of each response; a question without a prediction has none.

    The i-th `[SEG]` is the i-th mask: inside the only answer it belongs to the answer, before it to the reasoning,
    after it to nothing; without an answer, or with several, all belong to nothing. A `[SEG]` without a mask predicts
    nothing.

    Raises:
        ValueError: if masks of a prediction have another size than the true ones; names the question.
    """
    return [_grade(item, predictions.get(item.key)) for item in items]


def summarise(graded: Sequence[VrtGraded], seed: int = 0) -> dict[str, Any]:
    """Return `{reasoning: {miou, lq, sq}, answer: {…}, per_class: {class: {n, reasoning, answer}}, extra}`.

    In each sample and section predicted and true masks are paired one to one with the largest total IoU, and every true
    mask has the IoU of its pair, 0 without one. Over all true masks of the benchmark, not over samples: mIoU is the
    mean, LQ the share strictly above 0.5, SQ the mean of these (0 when there are none). Masks too many cost nothing, so
    `extra` counts them.

    Source: arXiv 2512.05091, section on the benchmark, and the released scorer.
    """
    names = [*CLASSES, *sorted({name for row in graded for name in row.item.classes} - CLASSES.keys())]
    by_class = {name: [row for row in graded if name in row.item.classes] for name in names}
    spans = Counter(row.answer_spans for row in graded if row.answer_spans is not None)
    extra: dict[str, Any] = {
        "n": len(graded),
        "true_masks": {section: sum(len(row.ious[section]) for row in graded) for section in SECTIONS},
        "predicted_masks": {section: sum(row.predicted[section] for row in graded) for section in SECTIONS},
        "precision_iou": {section: _precision(graded, section) for section in SECTIONS},
        "segs_without_mask": sum(row.unmasked for row in graded),
        "responses_without_answer": spans[0],
        "responses_with_several_answers": spans[2],
        "intervals": {section: _intervals(graded, section, seed) for section in SECTIONS},
    }
    return {
        **{section: _scores(graded, section) for section in SECTIONS},
        "per_class": {
            name: {"n": len(rows), **{section: _scores(rows, section) for section in SECTIONS}}
            for name, rows in by_class.items()
            if rows
        },
        "extra": extra,
    }


def _objects(text: str) -> dict[int, Rle]:
    try:
        objects = {
            int(number): check_rle(info["mask"], where=f"mask of object {number}")
            for number, info in json.loads(text).items()
        }
    except (TypeError, KeyError, AttributeError, RecursionError) as error:
        raise RowError("objects_info_json", text[:80], "is not {id: {mask, caption}}") from error
    except json.JSONDecodeError as error:
        raise RowError("objects_info_json", text[:80], f"is not JSON: {error}") from error
    if len({tuple(mask["size"]) for mask in objects.values()}) > 1:
        raise RowError("objects_info_json", text[:80], "has masks of different sizes")
    return objects


def _text(features: Mapping[str, Any], name: str) -> str:
    values = features.get(name)
    if not values or not isinstance(values[0], bytes):
        raise RowError(name, values, f"must be text; there are {', '.join(sorted(features))}")
    return values[0].decode()


def _image(path: Path, start: int) -> bytes:
    image = parse_example(record_at(path, start))["image"][0]
    assert isinstance(image, bytes), "checked when the file was loaded"
    return image


def _grade(item: VrtItem, prediction: Prediction | None) -> VrtGraded:
    if prediction is None:
        return VrtGraded(
            item, {name: [0.0] * len(masks) for name, masks in item.masks.items()}, dict.fromkeys(SECTIONS, 0), None, 0
        )
    trace = parse_trace(prediction.response, _NO_GEOMETRY, "orig_px", masks=prediction.masks or ())
    given = trace.masks or ()
    chosen = {"reasoning": trace.seg_reasoning, "answer": trace.seg_answer}
    preds = {
        section: [mask for index in places if index < len(given) and (mask := given[index]) is not None]
        for section, places in chosen.items()
    }
    try:
        ious = {section: _matched(preds[section], item.masks[section]) for section in SECTIONS}
    except ValueError as error:
        raise ValueError(f"key={item.key}: pred_masks: {error}") from error
    unmasked = trace.segs - sum(mask is not None for mask in given[: trace.segs])
    return VrtGraded(item, ious, {name: len(masks) for name, masks in preds.items()}, _answer_spans(trace), unmasked)


def _matched(preds: Sequence[Rle], targets: Sequence[Rle]) -> list[float]:
    """Return the IoU of each true mask with its partner, 0 without one."""
    ious = [0.0] * len(targets)
    matrix = rle_iou(preds, targets)
    for pred, target in one_to_one(matrix):
        ious[target] = matrix[pred][target]
    return ious


def _answer_spans(trace: Trace) -> int:
    if trace.answer_span is None:
        return 0
    another = trace.text.find("<answer>", trace.answer_span[1])
    return 1 if another < 0 or trace.text.find("</answer>", another) < 0 else 2


def _pooled(rows: Sequence[VrtGraded], section: str) -> list[float]:
    return [iou for row in rows for iou in row.ious[section]]


def _scores(rows: Sequence[VrtGraded], section: str) -> dict[str, float]:
    ious = _pooled(rows, section)
    located = [iou for iou in ious if iou > _LOCATED]
    return {
        "miou": sum(ious) / len(ious) if ious else 0.0,
        "lq": len(located) / len(ious) if ious else 0.0,
        "sq": sum(located) / len(located) if located else 0.0,
    }


def _precision(rows: Sequence[VrtGraded], section: str) -> float | None:
    """Return the mean IoU of predicted masks with their partners: what masks too many lower."""
    predicted = sum(row.predicted[section] for row in rows)
    return sum(_pooled(rows, section)) / predicted if predicted else None


def _intervals(rows: Sequence[VrtGraded], section: str, seed: int) -> dict[str, Any]:
    ious = [row.ious[section] for row in rows]
    located = [[iou for iou in own if iou > _LOCATED] for own in ious]
    sizes, hits = list(map(len, ious)), list(map(len, located))
    return {
        "miou": bootstrap(list(map(sum, ious)), sizes, seed),
        "lq": bootstrap(hits, sizes, seed),
        "sq": bootstrap(list(map(sum, located)), hits, seed),
    }
