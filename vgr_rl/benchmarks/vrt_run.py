"""Answer VRT-Bench, or samples of ours with masks: with an R-Sa2VA, or with boxes that SAM2 makes masks of."""

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from vgr_rl.benchmarks import vrt_bench
from vgr_rl.benchmarks.choice import Item
from vgr_rl.benchmarks.heldout import Progress
from vgr_rl.benchmarks.run import BenchmarkRun, collect, model_of, responses
from vgr_rl.benchmarks.serve import ServedModel, decode_image
from vgr_rl.benchmarks.suite import find_data
from vgr_rl.benchmarks.vrt_bench import VrtItem
from vgr_rl.data.schema import Message
from vgr_rl.data.vrt_records import SYSTEM_PROMPT, conversation
from vgr_rl.grounding import ImageGeometry, Size, Trace, TracedBox, parse_trace
from vgr_rl.grounding.trace import SEG
from vgr_rl.segment import auto
from vgr_rl.segment.auto import is_r_sa2va

BOX_PROMPT = (
    "You answer questions about an image by pointing at objects. First reason step by step between <think> and "
    "</think>, then answer between <answer> and </answer>. In both, write the bounding box of every object that you "
    "refer to as <box>[x1,y1,x2,y2]</box>."
)
log = logging.getLogger(__name__)


def run(task: BenchmarkRun, progress: Progress) -> dict[str, Any]:
    """Generate what is missing and score, as `benchmarks.run.run` does for the benchmarks with options.

    Raises:
        ValueError: for bad settings or data, and when `out` holds a run with other settings.
    """
    segmenter = is_r_sa2va(task.model) and task.url is None
    if segmenter == (task.sam2 is not None):
        raise ValueError(
            f"model={task.model} is an R-Sa2VA, which needs no sam2={task.sam2}"
            if segmenter
            else f"model={task.model} is no R-Sa2VA folder; name the SAM2 that makes masks of its boxes (sam2=)"
        )
    data = find_data(task.benchmark, task.data)
    items = {item.key: item for item in vrt_bench.load(data)[: task.limit]}
    model = None if segmenter else model_of(task)
    settings = {**task.settings(model, data), "sam2": task.sam2}
    answer = partial(_with_segs, task) if segmenter else partial(_with_boxes, task, model)
    return collect(task, data, items, settings, answer, progress)


def system_prompt(model: str) -> str:
    """Return our instructions for a model, which writes `[SEG]` or boxes."""
    return SYSTEM_PROMPT if is_r_sa2va(model) else BOX_PROMPT


def as_question(item: VrtItem) -> Item:
    """Return a question as the benchmarks with answers have them: to be asked, not to be scored."""
    return Item(item.key, item.question, "", "", "", item.image)


def read_boxes(response: str, size: Size, model_size: Size | None, prefill: str) -> tuple[str, list[TracedBox]]:
    """Return `boxes_as_segs` of a response.

    Args:
        response: what the model wrote.
        size: of the stored image, pixels.
        model_size: of the image in whose pixels the model writes boxes; None: the stored one.
        prefill: what the response was begun with.
    """
    return boxes_as_segs(parse_trace(response, ImageGeometry(size, model_size or size), "model_px", prefill=prefill))


def boxes_as_segs(trace: Trace) -> tuple[str, list[TracedBox]]:
    """Return a response with `[SEG]` for each of its boxes, and the boxes; one that its section had before is left out.

    A section is the reasoning before the answer, or the answer. Any `[SEG]` of the response itself is dropped.
    """
    start, end = trace.answer_span or (len(trace.text), len(trace.text))
    pieces, kept, place = [], [], 0
    seen: set[Any] = set()
    for box in trace.boxes:
        section = (box.span[0] >= start) + (box.span[0] >= end)
        first = (section, box.box_orig_px) not in seen
        seen.add((section, box.box_orig_px))
        pieces += [trace.text[place : box.span[0]].replace(SEG, ""), SEG if first else ""]
        kept += [box] if first else []
        place = box.span[1]
    return "".join(pieces) + trace.text[place:].replace(SEG, ""), kept


def _with_segs(task: BenchmarkRun, todo: Sequence[VrtItem]) -> Iterator[dict[str, Any]]:
    import torch
    from transformers import AutoProcessor

    from vgr_rl.segment.model import RSa2VA
    from vgr_rl.segment.predict import predict

    auto.register()
    model = RSa2VA.from_pretrained(task.model).to("cuda" if torch.cuda.is_available() else "cpu").eval()
    processor = AutoProcessor.from_pretrained(task.model, **task.processor_kwargs)
    for item in todo:
        picture = decode_image({"bytes": item.image()}, Path())
        said = predict(
            model, processor, picture, item.question, task.system_prompt or "", max_new_tokens=task.max_new_tokens
        )
        row = {"id": item.key, "key": item.key, "response": said.text, "pred_masks": list(said.masks)}
        yield {**row, "truncated": said.truncated, "length": said.length}


def _ask(task: BenchmarkRun, item: Item) -> list[Message]:
    return conversation(task.system_prompt or "", item.question)


def _with_boxes(task: BenchmarkRun, model: ServedModel | None, todo: Sequence[VrtItem]) -> Iterator[dict[str, Any]]:
    import torch

    from vgr_rl.segment.prompted import PromptedSam2

    assert task.sam2 is not None, "checked by run"
    sam2 = PromptedSam2(task.sam2, "cuda" if torch.cuda.is_available() else "cpu")
    items = {item.key: as_question(item) for item in todo}
    for response, model_size in responses(task, partial(_ask, task), model, list(items.values())):
        picture = decode_image(items[response.id].encoded_images()[0], Path())
        size = Size(*picture.size)
        text, boxes = read_boxes(response.text, size, model_size, task.prefill)
        masks = sam2.masks(sam2.embed([picture])[0], size, [box.box_orig_px for box in boxes]) if boxes else []
        row = {"id": response.id, "key": response.id, "response": text, "raw": response.text, "pred_masks": masks}
        yield {**row, "truncated": response.truncated, "length": response.length}
