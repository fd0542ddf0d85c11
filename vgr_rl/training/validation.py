"""Benchmarks that a run is validated on (`validation.benchmarks`): asked by the rollouts, scored as by `evaluate`."""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vgr_rl.benchmarks.answers import CONVENTIONS, Convention
from vgr_rl.benchmarks.choice import Benchmark, Item
from vgr_rl.benchmarks.predictions import Prediction, Predictions
from vgr_rl.benchmarks.run import written_size
from vgr_rl.benchmarks.suite import CHOICE, RUNNABLE, find_data, score_items
from vgr_rl.data.schema import Row
from vgr_rl.data.treevgr import SYSTEM_PROMPT
from vgr_rl.errors import ConfigError
from vgr_rl.grounding import Frame, ResizeRule, Sample, Size

_OF_RESULT = ("overall", "miou")
_BESIDE = ("precision_iou", "dual_iou", "boxes_per_answer", "malformed_share", "truncated_share", "missing")
_KEYS = ("data", "items", "convention")
_PREFIX = "val"


@dataclass(frozen=True, slots=True)
class Validation:
    """A benchmark, or a fixed part of it.

    Attributes:
        benchmark: how it is asked and scored.
        items: the questions that are asked, in the order of the file.
        of: how many the file has.
        convention: whose prompts and scores.
        system_prompt: None: the samples' own.
    """

    benchmark: Benchmark
    items: Sequence[Item]
    of: int
    convention: Convention
    system_prompt: str | None

    def rows(self) -> Iterator[Row]:
        """Yield the questions as rows of ours, each with its encoded images, which are read when it is its turn.

        The targets stay here: no reward is wanted, and published boxes may leave their image.
        """
        for item in self.items:
            sample = Sample(
                id=item.key,
                data_source=self.benchmark.name,
                question=item.question,
                answer="",
                answer_kind="none",
                options=(),
                targets=(),
                image_size=item.stored_size(),
            )
            prompt = self.benchmark.messages(item, self.convention, self.system_prompt)
            yield Row(sample, prompt, item.encoded_images())

    def score(self, responses: Mapping[str, Prediction], label: str) -> dict[str, Any]:
        """Score responses, by the keys of their questions, as `vgr_rl.evaluate score` does; absent ones are wrong."""
        missing = [item.key for item in self.items if item.key not in responses]
        predictions = Predictions(by_key=dict(responses), missing=missing)
        return score_items(self.benchmark, self.items, predictions, label, self.convention).result

    def metrics(self, result: Mapping[str, Any]) -> dict[str, float]:
        """Return the metrics of a result of `score`: `val/<benchmark>/overall` and so on, those that are known."""
        numbers = {name: result[name] for name in _OF_RESULT}
        numbers |= {name: result["extra"][name] for name in _BESIDE}
        numbers |= {f"accuracy/{name}": scores["accuracy"] for name, scores in result["per_category"].items()}
        return {self._full(name): float(number) for name, number in numbers.items() if number is not None}

    def metric_names(self) -> list[str]:
        """Return the names that `metrics` can have."""
        categories = dict.fromkeys(f"accuracy/{item.category}" for item in self.items)
        return [self._full(name) for name in (*_OF_RESULT, *_BESIDE, *categories)]

    def _full(self, name: str) -> str:
        return f"{_PREFIX}/{self.benchmark.name}/{name}"

    def describe(self) -> str:
        """Return what is asked, for the plan."""
        part = f"{len(self.items)} of {self.of}" if len(self.items) < self.of else f"all {self.of}"
        return f"{self.benchmark.name} ({part} questions)"


def load_validations(config: DictConfig) -> list[Validation]:
    """Read and check the benchmarks of `validation.benchmarks`.

    Raises:
        ConfigError: naming the key whose value or file cannot be used.
    """
    settings: Any = OmegaConf.to_container(config.validation, resolve=True)
    file = settings["system_prompt_file"]
    if file is not None and not Path(file).is_file():
        raise ConfigError(f"validation.system_prompt_file={file} does not exist")
    given = None if file is None else Path(file).read_text(encoding="utf-8").strip()
    return [_load(name, own, settings["seed"], given) for name, own in settings["benchmarks"].items() if own]


def check_validation(config: DictConfig) -> list[str]:
    """Return what does not fit in `validation`, apart from its benchmarks' files."""
    settings, frequency = config.validation, config.trainer.test_freq
    asked = [name for name, own in settings.benchmarks.items() if own]
    problems = []
    if asked and frequency < 1 and not config.trainer.val_before_train:
        problems.append(f"validation.benchmarks={asked} but trainer.test_freq={frequency}: set every how many steps")
    metric = settings.best_metric
    if settings.best_mode not in ("max", "min"):
        problems.append(f"validation.best_mode={settings.best_mode} but expected max or min")
    if metric is None:
        return problems
    if frequency < 1:
        problems.append(f"validation.best_metric={metric} but trainer.test_freq={frequency}: it is never measured")
    if config.trainer.save_freq < 1:
        problems.append(f"validation.best_metric={metric} but trainer.save_freq={config.trainer.save_freq}: set it")
    return problems


def check_best_metric(metric: str | None, validations: Sequence[Validation]) -> list[str]:
    """Return a problem when the best checkpoint is to be chosen by a number that no benchmark gives."""
    if metric is None or not metric.startswith(f"{_PREFIX}/"):  # the others are verl's own, of data.val_files
        return []
    known = [name for validation in validations for name in validation.metric_names()]
    given = f"gives only {', '.join(known)}" if known else "is empty"
    return [] if metric in known else [f"validation.best_metric={metric} but validation.benchmarks {given}"]


def read_responses(
    details: Sequence[str], max_length: int, frame: Frame, resize: ResizeRule, prefill: str
) -> dict[str, Prediction]:
    """Return the predictions of rows that the reward manager wrote, by the keys of their questions.

    Args:
        details: rows as JSON, with id, response, length (tokens) and image_size.
        max_length: a response of so many tokens was cut off.
        frame: the frame of the boxes that the model writes.
        resize: how its processor resizes images.
        prefill: what the rows' responses begin with although the model did not write it.
    """
    predictions: dict[str, Prediction] = {}
    for row in map(json.loads, details):
        size = written_size(frame, resize, Size(*row["image_size"]))
        response = row["response"].removeprefix(prefill)
        predictions[row["id"]] = Prediction(row["id"], response, size, truncated=row["length"] >= max_length)
    return predictions


def as_row(prediction: Prediction) -> dict[str, Any]:
    """Return a row of a file of predictions."""
    size = {} if prediction.model_size is None else {"model_size": list(prediction.model_size)}
    return {"key": prediction.key, "response": prediction.response, **size, "truncated": prediction.truncated}


def _load(name: str, settings: Any, seed: int, system_prompt: str | None) -> Validation:
    key = f"validation.benchmarks.{name}"
    if name not in RUNNABLE:
        raise ConfigError(f"{key}: there is no such benchmark; expected some of {', '.join(RUNNABLE)}")
    if not isinstance(settings, Mapping) or not {"data"} <= settings.keys() <= set(_KEYS):
        raise ConfigError(f"{key}={settings} but expected {{data: FILE}} and, of {', '.join(_KEYS[1:])}, what differs")
    convention, count = settings.get("convention", "authors"), settings.get("items")
    if convention not in CONVENTIONS:
        raise ConfigError(f"{key}.convention={convention} but expected one of {', '.join(CONVENTIONS)}")
    benchmark = RUNNABLE[name]
    try:
        items = benchmark.load(find_data(name, str(settings["data"])))
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from error
    total = len(items)
    if count is not None:
        if type(count) is not int or not 1 <= count <= total:
            raise ConfigError(f"{key}.items={count} but expected 1 to {total}, or null for all")
        items = [items[index] for index in sorted(random.Random(f"{seed}:{name}").sample(range(total), count))]
    if system_prompt is None and name in CHOICE:
        system_prompt = SYSTEM_PROMPT
    return Validation(benchmark, items, total, convention, system_prompt)
