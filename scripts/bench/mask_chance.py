"""What IoU one knows to have without looking: the best constant mask and the best box around the centre.

`python scripts/bench/mask_chance.py --train TRAIN.parquet --heldout HELDOUT.parquet [--result OUT/result.json]`

Both are chosen on the training samples (the mean of their masks, cut at the level with the largest mean IoU; the box of
the width and height with the largest), and are then the answer to every held-out question, as often as it has true
masks, which is more than a model is told. Below stand the scores of a model, from the result.json that evaluate wrote.
"""

import argparse
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this file's folder would hide the package `rewards`

from vgr_rl.benchmarks.predictions import Prediction
from vgr_rl.benchmarks.vrt_bench import SECTIONS, VrtItem, grade, load, summarise
from vgr_rl.grounding import Rle
from vgr_rl.grounding.masks import decode, encode
from vgr_rl.grounding.trace import SEG

LEVELS, STEP = 20, 4
Masks = NDArray[np.bool_]
logger = logging.getLogger(__name__)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Scores of constant masks on samples of one image size.")
    parser.add_argument("--train", type=Path, required=True, help="samples that the constant masks are chosen on")
    parser.add_argument("--heldout", type=Path, required=True, help="samples that are scored")
    parser.add_argument("--result", type=Path, help="a model's result.json on --heldout, shown below")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    targets = decode([mask for item in load(options.train) for masks in item.masks.values() for mask in masks])
    heldout = load(options.heldout)
    logger.info("%-24s reasoning mIoU    LQ   answer mIoU    LQ", f"{len(heldout)} held-out samples")
    for name, candidates in (("best constant mask", levels(targets)), ("best centre box", boxes(targets))):
        chosen = max(candidates, key=lambda mask: mean_iou(mask, targets))
        show(name, summarise(grade(heldout, always(encode(chosen[None])[0], heldout))))
    if options.result is not None:
        show(str(options.result.parent), json.loads(options.result.read_text(encoding="utf-8")))


def levels(targets: Masks) -> Iterator[Masks]:
    """Yield the mean mask cut at several levels."""
    mean = targets.mean(axis=0)
    yield from (mean >= level * mean.max() / LEVELS for level in range(LEVELS))


def boxes(targets: Masks) -> Iterator[Masks]:
    """Yield boxes around the centre."""
    height, width = targets.shape[1:]
    for tall in range(STEP, height + 1, STEP):
        for wide in range(STEP, width + 1, STEP):
            box = np.zeros((height, width), dtype=bool)
            top, left = (height - tall) // 2, (width - wide) // 2
            box[top : top + tall, left : left + wide] = True
            yield box


def mean_iou(mask: Masks, targets: Masks) -> float:
    """Return the mean IoU of one mask with many."""
    shared = (targets & mask).sum(axis=(1, 2))
    return float((shared / (targets | mask).sum(axis=(1, 2))).mean())


def always(mask: Rle, items: list[VrtItem]) -> dict[str, Prediction]:
    """Answer every question with one mask, as often as it has true masks."""
    said = {}
    for item in items:
        count = {section: len(item.masks[section]) for section in SECTIONS}
        text = f"<think>{SEG * count['reasoning']}</think><answer>{SEG * count['answer']}</answer>"
        said[item.key] = Prediction(item.key, text, masks=(mask,) * sum(count.values()))
    return said


def show(name: str, result: dict[str, dict[str, float]]) -> None:
    """Print one line of the table."""
    scores = [result[section][metric] for section in SECTIONS for metric in ("miou", "lq")]
    logger.info("%-24s %14.3f %5.2f %13.3f %5.2f", name, *scores)


if __name__ == "__main__":
    main()
