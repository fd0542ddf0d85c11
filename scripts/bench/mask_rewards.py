"""Measure the mask rewards against dense arrays and against pycocotools alone; `rewards.py` prints the ratios.

64 samples with images of 2250 x 1500 pixels and 1 to 6 masks a side, given as COCO run lengths; most predictions are
copies of a true mask, a little out of place. The dense way decodes every mask and counts the pixels of each pair with
numpy; pycocotools alone is one call of its `iou` a sample, without any reward around it. Logits are those of a group of
four responses with 1 to 6 masks each, as VRT trains, against the 1 to 6 true masks that the group shares; the dense way
is scipy's sigmoid, threshold, float32, matrix product and sums. Half of its time and more is the sigmoid, which a
threshold on the logits saves; the rest alone takes about three times as long as packed masks. Everything runs in one
thread. For each sample the ways take turns and the fastest round counts, so that a machine that is busy with other
things disturbs them little and alike.
"""

import resource
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco
from scipy.special import expit

from rewards.mask_iou import DualMaskIoU
from vgr_rl.grounding import ImageGeometry, Rle, Sample, Size, Target, Trace, box_rle, check_rle, parse_trace, rle_iou
from vgr_rl.grounding.masks import resample
from vgr_rl.grounding.packed_masks import pack, packed_iou

SAMPLES, MOST_MASKS, SIZE = 64, 6, Size(2250, 1500)
HUGE = Size(16_384, 16_384)
LOGITS_PX, GROUPS, GROUP = 256, 16, 4
ROUNDS, DENSE_ROUNDS = 15, 2

Logits = NDArray[np.float32]
Dense = NDArray[np.bool_]


class Row(NamedTuple):
    """One measured ratio and its limit.

    Attributes:
        name: what was compared.
        ratio: the measured ratio.
        limit: what it must reach or stay under.
        at_least: whether the limit is the smallest good ratio, or else the largest.
    """

    name: str
    ratio: float
    limit: float
    at_least: bool

    @property
    def ok(self) -> bool:
        """Say whether the ratio keeps its limit."""
        return self.ratio >= self.limit if self.at_least else self.ratio <= self.limit


def measure() -> list[Row]:
    """Measure everything; takes about half a minute."""
    random = np.random.default_rng(0)
    grown = _resident_growth()  # first: what runs later leaves the peak high
    responses = [_response(random) for _ in range(SAMPLES)]
    ours, alone = _seconds([DualMaskIoU(), _pycocotools_iou], responses, ROUNDS)
    (dense,) = _seconds([_dense_iou], responses, DENSE_ROUNDS)
    logits = [_logits_of_group(random) for _ in range(GROUPS)]
    packed, products = _seconds([_packed_iou, _matrix_product_iou], logits, ROUNDS)
    return [
        Row("masks of 2250x1500 px: decoded to dense arrays / dual mask IoU", dense / ours, 300, at_least=True),
        Row("masks of 2250x1500 px: dual mask IoU / pycocotools' IoU alone", ours / alone, 1.2, at_least=False),
        Row("masks of 16384x16384 px: memory of a comparison / one dense mask", grown, 0.05, at_least=False),
        Row(
            "logits of 256x256 px: sigmoid and dense matrix products / packed masks",
            products / packed,
            8,
            at_least=True,
        ),
    ]


def fastest(ways: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Return the seconds of the fastest of `rounds` calls of each way, the ways taking turns."""
    seconds = [float("inf")] * len(ways)
    for _ in range(rounds):
        for index, way in enumerate(ways):
            start = time.perf_counter()
            way()
            seconds[index] = min(seconds[index], time.perf_counter() - start)
    return seconds


def _seconds(ways: Sequence[Callable[..., object]], samples: Sequence[tuple[Any, Any]], rounds: int) -> list[float]:
    """Return the seconds that each way takes for all samples."""
    of_samples = [fastest([partial(way, *sample) for way in ways], rounds) for sample in samples]
    return [sum(seconds) for seconds in zip(*of_samples, strict=True)]


def _response(random: np.random.Generator) -> tuple[Trace, Sample]:
    """Return a response with 1 to 6 masks to a sample with 1 to 6 masks."""
    preds, targets = random.integers(1, MOST_MASKS + 1, size=2)
    true = [_outline(random) for _ in range(targets)]
    moved = [outline + random.uniform(-20, 20, size=2) for outline in true[:preds]]
    others = [_outline(random) for _ in range(preds - len(moved))]
    text = f"so</think><answer>{'[SEG]' * preds}</answer>"
    geometry = ImageGeometry(SIZE, SIZE)
    trace = parse_trace(text, geometry, "model_px", masks=[_rle(outline) for outline in moved + others])
    masks = tuple(Target(None, role="answer", mask_rle=_rle(outline)) for outline in true)
    return trace, Sample("bench", "bench", "", "", "none", (), masks, SIZE)


def _outline(random: np.random.Generator) -> NDArray[np.float64]:
    """Return the outline of a wavy blob inside the image as points `[2000, 2]`, pixels."""
    angle = np.linspace(0, 2 * np.pi, 2000, endpoint=False)
    waves = [random.uniform(0, 0.6) / k * np.cos(k * angle + random.uniform(0, 2 * np.pi)) for k in range(2, 24)]
    radius = random.uniform(150, 350)
    centre = random.uniform(radius, SIZE.width - radius), random.uniform(radius, SIZE.height - radius)
    away = radius * (1 + np.sum(waves, axis=0))
    return np.stack((centre[0] + away * np.cos(angle), centre[1] + away * np.sin(angle)), axis=1)


def _rle(outline: NDArray[np.float64]) -> Rle:
    return check_rle(coco.merge(coco.frPyObjects([outline.ravel().tolist()], SIZE.height, SIZE.width)), SIZE)


def _masks(trace: Trace, sample: Sample) -> tuple[list[Rle | None], list[Rle | None]]:
    return list(trace.masks or ()), [target.mask_rle for target in sample.targets]


def _pycocotools_iou(trace: Trace, sample: Sample) -> NDArray[np.float64]:
    preds, targets = _masks(trace, sample)
    ious: NDArray[np.float64] = coco.iou(preds, targets, [0] * len(targets))
    return ious


def _dense_iou(trace: Trace, sample: Sample) -> list[list[float]]:
    a, b = (coco.decode(masks).transpose(2, 0, 1).astype(bool) for masks in _masks(trace, sample))
    return [[(pred & target).sum() / max((pred | target).sum(), 1) for target in b] for pred in a]


def _logits_of_group(random: np.random.Generator) -> tuple[Logits, Dense]:
    """Return the logits of all masks of a group and the true masks."""
    preds, targets = random.integers(1, MOST_MASKS + 1, size=GROUP).sum(), random.integers(1, MOST_MASKS + 1)
    shape = LOGITS_PX, LOGITS_PX
    return random.standard_normal((preds, *shape), dtype=np.float32), random.random((targets, *shape)) < 0.5


def _packed_iou(preds: Logits, targets: Dense) -> list[list[float]]:
    return packed_iou(pack(preds > 0), pack(targets))


def _matrix_product_iou(preds: Logits, targets: Dense) -> Logits:
    a = (expit(preds) > 0.5).astype(np.float32).reshape(len(preds), -1)
    b = targets.astype(np.float32).reshape(len(targets), -1)
    shared = a @ b.T
    return shared / np.maximum(a.sum(axis=1)[:, None] + b.sum(axis=1) - shared, 1)


def _resident_growth() -> float:
    """Return how much the peak of resident memory grows while huge masks are compared, as a share of a dense one."""
    small, huge = ([box_rle((8, 8, 800, size.height / 2), size)] * MOST_MASKS for size in (SIZE, HUGE))
    rle_iou(small, small)
    resample(small[0], Size(LOGITS_PX, LOGITS_PX))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rle_iou(huge, huge)
    resample(huge[0], Size(LOGITS_PX, LOGITS_PX))
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return grown_kib * 1024 / (HUGE.width * HUGE.height)
