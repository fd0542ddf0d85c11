"""Rows, samples and responses that several tests of the rewards share."""

from typing import Any

from rewards import Score
from vgr_rl.grounding import Sample, Trace

ROW: dict[str, Any] = {
    "id": "7",
    "response": "a cup <box>[10,20,30,40]</box></think><answer>B</answer>",
    "answer": "B",
    "answer_kind": "choice",
    "image_size": [100, 80],
    "targets": [{"box": [10, 20, 30, 40]}],
}

SAMPLE: dict[str, Any] = {
    "answer": "B",
    "answer_kind": "choice",
    "image_size": [64, 64],
    "targets": [{"box": [0, 0, 20, 20]}],
    "prefilled": "<think>",
}
"""What another trainer's data column holds; `RIGHT` is worth 2.5 by TreeVGR's reward, `WRONG` 1."""

RIGHT, WRONG = "<box>[0,0,20,10]</box></think><answer>B</answer>", "</think><answer>A</answer>"


def fails_on_silence(trace: Trace, sample: Sample) -> Score:
    """A reward that cannot grade a response without an answer; others are worth its length."""
    return Score.failed("the judge is down") if trace.answer is None else Score(float(len(trace.answer)))
