"""The questions about the photographs, in the row layout of TreeVGR-RL-37K, and which photographs are held out."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

QUESTIONS_FILE = Path(__file__).with_name("questions.jsonl")
# Held out whole, so that no photograph is in both splits: a third of them, with every kind of question.
VAL_IMAGES = frozenset({"camera.png", "coffee.png", "microaneurysms.png", "moon.png", "page.png"})


def read_questions(path: Path = QUESTIONS_FILE) -> list[dict[str, Any]]:
    """Return the rows: id, images (one name), problem, answer, target_instances (bbox in pixels of the photograph)."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def split(questions: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Divide the questions into `train` and `val` by photograph, keeping their order."""
    parts: dict[str, list[dict[str, Any]]] = {"train": [], "val": []}
    for question in questions:
        parts["val" if VAL_IMAGES.intersection(question["images"]) else "train"].append(question)
    return parts
