"""The largest responses are graded in about a second; the bounds leave room for a busy machine."""

import random
import time
from typing import Any

import pytest

from rewards import Accuracy, Composer, DualIoU, Format, Term
from vgr_rl.grounding import ImageGeometry, Sample, Size, Target, parse_trace

SIZE = Size(1500, 1200)
TARGETS = tuple(Target((100.0 * k, 50.0, 100.0 * k + 90, 200.0)) for k in range(6))
SAMPLE = Sample("7", "test", "Which?", "B", "choice", ("x", "y"), TARGETS, SIZE)


def cpu_seconds(response: str, **params: Any) -> float:
    composer = Composer((Term("accuracy", Accuracy()), Term("format", Format()), Term("dual_iou", DualIoU(**params))))
    start = time.process_time()
    composed = composer.score(parse_trace(response, ImageGeometry(SIZE, SIZE), "model_px"), SAMPLE)
    assert composed.status == "ok"
    return time.process_time() - start


@pytest.fixture(scope="module", autouse=True)
def what_is_imported_when_first_used() -> None:
    cpu_seconds("<box>[1,2,3,4]</box><box>[1,2,3,4]</box>" * 300, matching="hungarian")


@pytest.mark.parametrize(
    "params",
    [{}, {"duplicate_penalty": 0.1}, {"matching": "hungarian"}, {"kind": "giou", "matching": "hungarian"}],
)
def test_ten_thousand_boxes(params: dict[str, Any]) -> None:
    generator = random.Random(0)
    corners = [(generator.randrange(1200), generator.randrange(900), generator.randint(1, 300)) for _ in range(10_000)]
    boxes = "".join(f"a cup <box>[{x},{y},{x + side},{y + side}]</box> " for x, y, side in corners)
    assert cpu_seconds(f"{boxes}</think><answer>B</answer>", **params) < 2


@pytest.mark.parametrize("piece", ["so it is. ", "<box>[1,2,3,4]</box>", "<box>"])
def test_ten_megabytes(piece: str) -> None:
    assert cpu_seconds(piece * (10_000_000 // len(piece)), duplicate_penalty=0.1) < 4
