"""Measure the reward library against its limits: prints a table of ratios and exits 1 when one is missed.

    python scripts/bench/rewards.py [--rounds 15] [--only text|masks] [--json]

The text part grades 4,096 responses of TreeVGR's form (512 questions, 8 responses each) of about 1,500 characters with
1 to 8 boxes and 1 to 6 targets, most boxes near a target, half of the questions with options. It compares parsing and
the three terms of TreeVGR, one response after the other, with one compiled regular expression that merely finds the
boxes in the same texts. The mask part is described in `mask_rewards.py`. Seeds are fixed and everything runs in one
thread. Both ways take turns on small batches and the fastest round of each batch counts, so that a machine that is busy
with other things disturbs them little and alike.
"""

import argparse
import json
import os
import random
import re
import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy is imported
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this file's folder would hide the package `rewards`

from rich.console import Console
from rich.table import Table

from rewards import Accuracy, DualIoU, Format
from scripts.bench import mask_rewards
from scripts.bench.mask_rewards import Row, fastest
from vgr_rl.grounding import Box, ImageGeometry, Sample, Size, Target, parse_trace

QUESTIONS, GROUP, BATCH, CHARACTERS = 512, 8, 128, 1500
SIZE, MODEL_SIZE = Size(1500, 1201), Size(1512, 1204)
BOX = re.compile(r"<box>\[(\d+),(\d+),(\d+),(\d+)\]</box>")
OPTIONS = ("red car", "green bus", "white van", "blue truck")
WORDS = (
    "the small red car stands left of a tall tree near the road and its door is open so we look at it more closely "
    "before we compare both sides again, because the sign behind the second window may show which one came first."
).split()


class Graded(NamedTuple):
    """One response and what it takes to grade it."""

    response: str
    sample: Sample
    geometry: ImageGeometry


def main() -> None:
    """Run the command line entry."""
    parser = argparse.ArgumentParser(description="Compare the reward library with its limits.")
    parser.add_argument("--rounds", type=int, default=15, help="how often each text batch is measured")
    parser.add_argument("--only", choices=("text", "masks"), help="measure one part")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    rows = []
    if options.only != "text":
        rows += mask_rewards.measure()  # first: it watches the peak of memory
    if options.only != "masks":
        rows += measure(options.rounds)
    if options.json:
        sys.stdout.write(json.dumps([row._asdict() | {"ok": row.ok} for row in rows], indent=1) + "\n")
    else:
        Console().print(table(rows))
    sys.exit(0 if all(row.ok for row in rows) else 1)


def measure(rounds: int) -> list[Row]:
    """Measure the text part."""
    generator = random.Random(0)
    graded = [response for number in range(QUESTIONS) for response in group(generator, number)]
    grade(graded)  # once before anything counts
    ours = regex = 0.0
    for start in range(0, len(graded), BATCH):
        batch = graded[start : start + BATCH]
        seconds = fastest([partial(grade, batch), partial(find_boxes, batch)], rounds)
        ours, regex = ours + seconds[0], regex + seconds[1]
    return [Row("4,096 responses: parse, format, accuracy, dual IoU / one regex", ours / regex, 10, at_least=False)]


def grade(batch: list[Graded]) -> float:
    """Parse each response and grade it with the terms of TreeVGR."""
    accuracy, form, dual_iou = Accuracy(), Format(), DualIoU()
    total = 0.0
    for response, sample, geometry in batch:
        trace = parse_trace(response, geometry, "model_px")
        total += form(trace, sample).value + accuracy(trace, sample).value + dual_iou(trace, sample).value
    return total


def find_boxes(batch: list[Graded]) -> int:
    """Find the boxes of each response and do nothing with them."""
    count = 0
    for response, _, _ in batch:
        for _match in BOX.finditer(response):
            count += 1
    return count


def group(generator: random.Random, number: int) -> list[Graded]:
    """Return one question with its responses."""
    targets = tuple(Target(random_box(generator)) for _ in range(generator.randint(1, 6)))
    choice = number % 2 == 0
    answer = generator.choice("ABCD") if choice else generator.choice(("red car", "three", "a stop sign", "12"))
    options = OPTIONS if choice else ()
    sample = Sample(str(number), "bench", "?", answer, "choice" if choice else "open", options, targets, SIZE)
    geometry = ImageGeometry(SIZE, MODEL_SIZE)
    return [Graded(response_to(generator, sample), sample, geometry) for _ in range(GROUP)]


def response_to(generator: random.Random, sample: Sample) -> str:
    """Return a response that mostly points at the targets and is often right."""
    count = generator.randint(1, 8)
    pieces = []
    for _ in range(count):
        box = random_box(generator)
        if generator.random() < 0.7:
            box = jittered(generator, generator.choice(sample.targets).box_orig_px or box)
        pieces.append(f"{words(generator, CHARACTERS // count - 32)} <box>[{','.join(f'{x:.0f}' for x in box)}]</box>")
    given = generator.choice((sample.answer, f"({sample.answer})", "A", "B. green bus", "The blue truck.", "two dogs"))
    return f"{' '.join(pieces)}.</think>\n<answer>{given}</answer>"


def words(generator: random.Random, characters: int) -> str:
    """Return running text of about so many characters."""
    chosen: list[str] = []
    while characters > 0:
        chosen.append(generator.choice(WORDS))
        characters -= len(chosen[-1]) + 1
    return " ".join(chosen)


def random_box(generator: random.Random) -> Box:
    """Return a box of 10 to 300 pixels a side inside the image."""
    x, y = generator.randrange(1200), generator.randrange(900)
    return float(x), float(y), float(x + generator.randint(10, 300)), float(y + generator.randint(10, 300))


def jittered(generator: random.Random, box: Box) -> Box:
    """Return a box with every side moved by up to ten pixels and nothing below 0."""
    x1, y1, x2, y2 = (max(x + generator.randint(-10, 10), 0) for x in box)
    return x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)


def table(rows: list[Row]) -> Table:
    """Return the rows as a table."""
    result = Table("measured", "ratio", "limit", "kept")
    for row in rows:
        limit = f"{'at least' if row.at_least else 'at most'} {row.limit:g}"
        result.add_row(row.name, f"{row.ratio:.3g}", limit, "yes" if row.ok else "[bold red]no")
    return result


if __name__ == "__main__":
    main()
