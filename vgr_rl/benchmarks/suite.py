"""The benchmarks that predictions can be scored on, under one name and one call each."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vgr_rl.benchmarks import vrt_bench
from vgr_rl.benchmarks.answers import Convention
from vgr_rl.benchmarks.choice import Benchmark, ChoiceBenchmark, Item
from vgr_rl.benchmarks.choice_score import Graded, grade, summarise
from vgr_rl.benchmarks.hrbench import HRBENCH_4K, HRBENCH_8K
from vgr_rl.benchmarks.mme_realworld import MME_REALWORLD_LITE
from vgr_rl.benchmarks.predictions import Predictions, read_predictions
from vgr_rl.benchmarks.samples import SAMPLES
from vgr_rl.benchmarks.treebench import TREEBENCH
from vgr_rl.benchmarks.vrt_bench import VrtItem
from vgr_rl.benchmarks.vstar import VSTAR

CHOICE: Mapping[str, ChoiceBenchmark] = {
    benchmark.name: benchmark for benchmark in (TREEBENCH, VSTAR, HRBENCH_4K, HRBENCH_8K, MME_REALWORLD_LITE)
}
RUNNABLE: Mapping[str, Benchmark] = {**CHOICE, SAMPLES.name: SAMPLES}
"""The benchmarks of questions with one answer each: `run` asks them, and so may a training run."""

NAMES = (*RUNNABLE, vrt_bench.NAME)

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class Scored:
    """What scoring gave.

    Attributes:
        result: the scores, as JSON types.
        predictions: the predictions that were used, and what is wrong with others.
        differences: in what the data differ from the published benchmark.
        graded: each question; empty for VRT-Bench.
    """

    result: dict[str, Any]
    predictions: Predictions
    differences: list[str]
    graded: Sequence[Graded] = ()


def score(
    name: str,
    data: Path,
    predictions: Path,
    convention: Convention = "authors",
    seed: int = 0,
    limit: int | None = None,
) -> Scored:
    """Score a file of predictions on a benchmark.

    `result["extra"]` says what was scored, and what the official numbers do not show.

    Args:
        name: one of `NAMES`.
        data: the published file.
        predictions: rows as `predictions.py` has them.
        convention: whose scoring.
        seed: of the bootstrap intervals.
        limit: score the first so many questions only.

    Raises:
        ValueError: if a file cannot be used; names file, row, field and value.
    """
    if name in RUNNABLE:
        items = RUNNABLE[name].load(data, limit)
        read = read_predictions(predictions, [item.key for item in items])
        return score_items(RUNNABLE[name], items, read, _label(predictions), convention, seed)
    samples = vrt_bench.load(data)[:limit]
    read = read_predictions(predictions, [item.key for item in samples])
    return score_masks(samples, read, _label(predictions), convention, seed)


def score_items(
    benchmark: Benchmark,
    items: Sequence[Item],
    predictions: Predictions,
    label: str,
    convention: Convention = "authors",
    seed: int = 0,
) -> Scored:
    """Score predictions on questions that have been read; `label` is what tables call the model."""
    graded = grade(items, predictions.by_key, benchmark, convention)
    differences, result = benchmark.differences(items), summarise(graded, benchmark.categories, seed)
    described = _described(result, benchmark.name, label, convention, differences, predictions)
    return Scored(described, predictions, differences, graded)


def score_masks(
    items: Sequence[VrtItem], predictions: Predictions, label: str, convention: Convention = "authors", seed: int = 0
) -> Scored:
    """Score predictions on questions of VRT-Bench that have been read; `label` is what tables call the model."""
    differences, result = (
        vrt_bench.differences(items),
        vrt_bench.summarise(vrt_bench.grade(items, predictions.by_key), seed),
    )
    described = _described(result, vrt_bench.NAME, label, convention, differences, predictions)
    return Scored(described, predictions, differences)


def _described(
    result: dict[str, Any],
    name: str,
    label: str,
    convention: Convention,
    differences: Sequence[str],
    predictions: Predictions,
) -> dict[str, Any]:
    description = {"benchmark": name, "name": label, "convention": convention, "whole_benchmark": not differences}
    return {**result, "extra": {**description, **predictions.counts(), **result["extra"]}}


def find_data(name: str, data: str) -> Path:
    """Return the file of a benchmark: a local one, or one of the hub, which is downloaded once.

    Args:
        name: one of `NAMES`.
        data: path of the file, of the folder that has it under its published name, or `OWNER/NAME` on the hub; for
            `samples` the parquet's.

    Raises:
        ValueError: if there is no such file.
    """
    path = Path(data)
    if name == SAMPLES.name:
        if not path.is_file():
            raise ValueError(f"data={data}: no such file; give a parquet of samples")
        return path
    repository, file = CHOICE[name].hub if name in CHOICE else vrt_bench.HUB
    if path.is_dir():
        path = path / file
    if path.exists():
        return path
    if not _HUB_ID.fullmatch(data) or path.suffix in (".tsv", ".jsonl", ".tfrecord"):
        raise ValueError(f"data={data}: no such file; give {file}, or the hub id {repository}")
    from huggingface_hub import snapshot_download

    patterns = None if name == VSTAR.name else file  # V*'s images lie beside its file
    try:
        return Path(snapshot_download(data, repo_type="dataset", allow_patterns=patterns)) / file
    except (OSError, ValueError) as error:
        raise ValueError(f"data={data}: no such file, and not to be had from the hub: {error}") from error


def benchmark_name(text: str) -> str:
    """Return the name of a benchmark whatever its case, dashes and underscores.

    Raises:
        ValueError: if there is none.

    Example:
        >>> benchmark_name("VRT-Bench"), benchmark_name("HRBench4K")
        ('vrt_bench', 'hrbench4k')
    """
    known = {_plain(name): name for name in NAMES}
    if _plain(text) not in known:
        raise ValueError(f"there is no benchmark {text}; there are {', '.join(NAMES)}")
    return known[_plain(text)]


def title(name: str) -> str:
    """Return what people call the benchmark `name`."""
    return RUNNABLE[name].title if name in RUNNABLE else vrt_bench.TITLE


def _label(predictions: Path) -> str:
    """Return what tables call the model: the file's name, or its folder's for the `predictions.jsonl` of a run."""
    return predictions.resolve().parent.name if predictions.stem == "predictions" else predictions.stem


def _plain(name: str) -> str:
    return re.sub(r"[\s*_-]", "", name).lower()
