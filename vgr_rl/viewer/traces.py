"""Rollouts as the page shows them: sentences, boxes and masks, their overlaps, what was earned; all plain JSON.

A group is what a model answered to one question: `{key, step, split, source, id, question, options, answer, size,
picture, truth, rollouts}`. `truth`, as the `evidence` of a rollout, is a list of `{box, mask?, name?}` in pixels of the
stored image; masks are shrunk to the picture. The `pieces` of a rollout are its text: `[text, sentence]`, or `[text,
sentence, number]` where it writes the evidence of that number; protocol tags are sentence -1. `iou` has a row for each
piece of evidence and a column for each true one.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rewards.answers import choice_letter
from vgr_rl.grounding import Box, ImageGeometry, Rle, Size, check_rle, iou, parse_trace, rle_box, rle_iou
from vgr_rl.grounding.masks import resample
from vgr_rl.grounding.trace import SEG
from vgr_rl.viewer.pictures import Album, fitted

Json = dict[str, Any]
Weights = Mapping[str, float]

_MAX_EVIDENCE = 48
_MAX_CHARACTERS = 20_000
_BREAK = re.compile(r"</?(?:think|answer)>|(?<=[.!?。！？])\s+|\n+")
_SEG = re.compile(re.escape(SEG))


def trace_group(
    key: str, rows: Sequence[Mapping[str, Any]], album: Album, weights: Sequence[Weights], sides: Sequence[int] = ()
) -> Json:
    """Describe the responses to one question.

    Args:
        key: what tells the group from others.
        rows: as in `samples.jsonl`, at least one.
        album: takes the picture.
        weights: for each row those of its reward terms, by name.
        sides: for each row which of the compared models wrote it, if there are several.

    Raises:
        ValueError: when a mask is not one of the picture's size; names the row.
    """
    first = rows[0]
    size = Size(*first["image_size"])
    shown = fitted(size, album.longest_side)
    truth = _truth(first, size)[:_MAX_EVIDENCE]
    rollouts = [_rollout(row, size, shown, truth, own) for row, own in zip(rows, weights, strict=True)]
    for rollout, side in zip(rollouts, sides, strict=False):
        rollout["side"] = side
    return {
        "key": key,
        "step": first.get("step"),
        "split": first.get("split", ""),
        "source": str(first.get("data_source", "")),
        "id": str(first["id"]),
        "question": str(first.get("question", "")).replace("<image>", "").strip(),
        "options": [f"{chr(ord('A') + index)}. {option}" for index, option in enumerate(first.get("options") or ())],
        "answer": str(first.get("answer", "")),
        "size": list(size),
        "picture": album.add(first.get("image")),
        "truth": [_shrunk(target, shown) for target in truth],
        "rollouts": rollouts,
    }


def _rollout(row: Mapping[str, Any], size: Size, shown: Size, truth: Sequence[Json], weights: Weights) -> Json:
    trace = parse_trace(str(row["response"]), ImageGeometry(size, size), "orig_px", prefill="")  # restored when logged
    masks = [_target(None, mask, size, row["id"]) for mask in row.get("pred_masks") or ()]
    evidence = [*({"box": tuple(box)} for box in row["boxes_orig_px"]), *masks]
    segs = [seg.span() for seg in _SEG.finditer(trace.text)]
    spans = [(span, number) for number, span in enumerate([*(box.span for box in trace.boxes), *segs[: len(masks)]])]
    text = trace.text[:_MAX_CHARACTERS]
    kept = evidence[:_MAX_EVIDENCE]
    left_out = {"more characters": len(trace.text) - len(text), "more boxes not drawn": len(evidence) - len(kept)}
    accuracy = row["parts"].get("accuracy")
    return {
        "number": row.get("rollout", 0),
        "pieces": pieces(text, sorted(span for span in spans if span[1] < len(kept))),
        "omitted": ", ".join(f"{count} {what}" for what, count in left_out.items() if count),
        "evidence": [_shrunk(found, shown) for found in kept],
        "iou": [[round(overlap(found, target), 3) for target in truth] for found in kept],
        "right": None if accuracy is None else accuracy >= 1.0,
        "answer": _given(trace.answer, row.get("options") or ()),
        "score": _rounded(row.get("score")),
        "terms": _terms(row, weights),
        "parts": {name: _rounded(value) for name, value in row["parts"].items()},
        "advantage": _rounded(row.get("advantage")),
        "length": int(row.get("length", 0)),
        "truncated": bool(row.get("truncated")),
        "malformed": trace.malformed,
    }


def pieces(text: str, spans: Sequence[tuple[tuple[int, int], int]]) -> list[list[Any]]:
    """Cut a text into sentences, and these where they write evidence; joined, the pieces are the text.

    Args:
        text: the text of a response.
        spans: by position, where evidence is written and its number; those past the end of the text are left out.
    """
    found: list[list[Any]] = []
    sentence = position = 0
    for (start, end), number in [*(s for s in spans if s[0][1] <= len(text)), ((len(text), len(text)), -1)]:
        for match in _BREAK.finditer(text, position, start):
            is_tag = match[0].startswith("<")
            found.append([text[position : match.start() if is_tag else match.end()], sentence])
            if is_tag:
                found.append([match[0], -1])
            sentence, position = sentence + 1, match.end()
        found.append([text[position:start], sentence])
        found.append([text[start:end], sentence, number])
        position = end
    return [piece for piece in found if piece[0]]


def overlap(first: Json, second: Json) -> float:
    """Return the IoU of two pieces of evidence: of their masks where both have one, else of their boxes."""
    if "mask" in first and "mask" in second:
        return rle_iou([first["mask"]], [second["mask"]])[0][0]
    return iou(first["box"], second["box"]) if first["box"] and second["box"] else 0.0


def reward_weights(config: Mapping[str, Any], source: str) -> dict[str, float]:
    """Return the weights of the reward terms that a configuration gives to a data source."""
    reward = config.get("reward") or {}
    changes = (reward.get("by_source") or {}).get(source) or {}
    named = reward.get("terms") or {}
    terms = named if isinstance(named, Mapping) else {entry["name"]: entry for entry in named}
    entries = {name: {**(terms.get(name) or {}), **(changes.get(name) or {})} for name in {**terms, **changes}}
    return {
        name: float(entry.get("weight", 1.0)) for name, entry in entries.items() if changes.get(name, entry) is not None
    }


def _terms(row: Mapping[str, Any], weights: Weights) -> list[list[Any]]:
    """Return [name, value, weight, status, reason] of each term; weights only where they lead to the score."""
    values, statuses, reasons = row.get("terms") or {}, row.get("status") or {}, row.get("reasons") or {}
    total = sum(weights.get(name, 1.0) * value for name, value in values.items())
    score = row.get("score")
    adds_up = score is not None and abs(total - score) <= 1e-6 * max(1.0, abs(score))
    shown_weights = {name: weights.get(name, 1.0) for name in values} if adds_up else {}
    return [
        [name, _rounded(values.get(name)), shown_weights.get(name), status, reasons.get(name, "")]
        for name, status in statuses.items()
    ]


def _truth(row: Mapping[str, Any], size: Size) -> list[Json]:
    """Return the true boxes and masks of a row: of `targets` as a dump has them, else of `targets_orig_px`."""
    if "targets" not in row:
        return [{"box": tuple(box)} for box in row.get("targets_orig_px") or ()]
    targets = [_target(target.get("box"), target.get("mask"), size, row["id"]) for target in row["targets"]]
    return [
        {**target, "name": given["name"]} if given.get("name") else target
        for target, given in zip(targets, row["targets"], strict=True)
    ]


def _target(box: Sequence[float] | None, mask: object, size: Size, row_id: object) -> Json:
    if mask is None:
        return {"box": tuple(box) if box else None}
    rle: Rle = check_rle(mask, size, where=f"row {row_id}: mask")
    return {"box": tuple(box) if box else rle_box(rle), "mask": rle}


def _shrunk(evidence: Json, shown: Size) -> Json:
    box: Box | None = evidence["box"]
    shrunk = {**evidence, "box": None if box is None else [round(side, 1) for side in box]}
    return {**shrunk, "mask": resample(evidence["mask"], shown)} if "mask" in evidence else shrunk


def _given(answer: str | None, options: Sequence[str]) -> str:
    if answer is None:
        return "none"
    letter = choice_letter(answer, options) if options else None
    return letter or (answer if len(answer) <= 60 else answer[:60] + "…")


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")
