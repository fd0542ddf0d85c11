"""Benchmarks that a run is validated on (`validation.benchmarks`): asked by the rollouts, scored as by `evaluate`."""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf

from vgr_rl.benchmarks import vrt_bench, vrt_run
from vgr_rl.benchmarks.answers import CONVENTIONS
from vgr_rl.benchmarks.predictions import Prediction
from vgr_rl.benchmarks.run import written_size
from vgr_rl.benchmarks.suite import CHOICE, RUNNABLE, find_data
from vgr_rl.data.treevgr import SYSTEM_PROMPT
from vgr_rl.errors import ConfigError
from vgr_rl.grounding import Frame, ResizeRule, Size
from vgr_rl.segment.auto import is_r_sa2va
from vgr_rl.training.validation_benchmarks import PREFIX, AnswerValidation, MaskValidation, Validation

_T = TypeVar("_T")

_KEYS = ("data", "items", "convention")


def load_validations(config: DictConfig) -> list[Validation]:
    """Read and check the benchmarks of `validation.benchmarks`.

    Raises:
        ConfigError: naming the key whose value or file cannot be used.
    """
    settings: Any = OmegaConf.to_container(config.validation, resolve=True)
    model = config.model
    file = settings["system_prompt_file"]
    if file is not None and not Path(file).is_file():
        raise ConfigError(f"validation.system_prompt_file={file} does not exist")
    given = None if file is None else Path(file).read_text(encoding="utf-8").strip()
    return [_load(name, own, settings["seed"], given, model) for name, own in settings["benchmarks"].items() if own]


def check_validation(config: DictConfig) -> list[str]:
    """Return what does not fit in `validation`, apart from its benchmarks' files."""
    settings, frequency = config.validation, config.trainer.test_freq
    asked = [name for name, own in settings.benchmarks.items() if own]
    problems = []
    if asked and frequency < 1 and not config.trainer.val_before_train:
        problems.append(f"validation.benchmarks={asked} but trainer.test_freq={frequency}: set every how many steps")
    if not asked and not config.data.val_files and (frequency > 0 or config.trainer.val_before_train):
        before = config.trainer.val_before_train
        problems.append(
            f"trainer.test_freq={frequency}, trainer.val_before_train={before} but data.val_files and "
            "validation.benchmarks are empty; name what the run is validated on, or set trainer.test_freq=-1"
        )
    if vrt_bench.NAME in asked and config.segmenter.model is None and not is_r_sa2va(config.model.path):
        problems.append(
            f"validation.benchmarks.{vrt_bench.NAME}: segmenter.model=null; name the SAM2 that makes masks of the boxes"
        )
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
    if metric is None or not metric.startswith(f"{PREFIX}/"):  # the others are verl's own, of data.val_files
        return []
    known = [name for validation in validations for name in validation.metric_names()]
    given = f"gives only {', '.join(known)}" if known else "is empty"
    return [] if metric in known else [f"validation.best_metric={metric} but validation.benchmarks {given}"]


def read_responses(
    details: Sequence[str], max_length: int, frame: Frame, resize: ResizeRule, prefill: str
) -> dict[str, Prediction]:
    """Return the predictions of rows that the reward manager wrote, by the keys of their questions.

    Args:
        details: rows as JSON, with id, response, length (tokens), image_size and, of R-Sa2VA, pred_masks.
        max_length: a response of so many tokens was cut off.
        frame: the frame of the boxes that the model writes.
        resize: how its processor resizes images.
        prefill: what the rows' responses begin with although the model did not write it.
    """
    predictions: dict[str, Prediction] = {}
    for row in map(json.loads, details):
        size = written_size(frame, resize, Size(*row["image_size"]))
        response = row["response"].removeprefix(prefill)
        masks = tuple(row["pred_masks"]) if "pred_masks" in row else None
        predictions[row["id"]] = Prediction(row["id"], response, size, masks, row["length"] >= max_length)
    return predictions


def as_row(prediction: Prediction) -> dict[str, Any]:
    """Return a row of a file of predictions."""
    size = {} if prediction.model_size is None else {"model_size": list(prediction.model_size)}
    masks = {} if prediction.masks is None else {"pred_masks": list(prediction.masks)}
    return {"key": prediction.key, "response": prediction.response, **size, **masks, "truncated": prediction.truncated}


def _load(name: str, settings: Any, seed: int, system_prompt: str | None, model: DictConfig) -> Validation:
    key = f"validation.benchmarks.{name}"
    if name not in (*RUNNABLE, vrt_bench.NAME):
        known = ", ".join((*RUNNABLE, vrt_bench.NAME))
        raise ConfigError(f"{key}: there is no such benchmark; expected some of {known}")
    if not isinstance(settings, Mapping) or not {"data"} <= settings.keys() <= set(_KEYS):
        raise ConfigError(f"{key}={settings} but expected {{data: FILE}} and, of {', '.join(_KEYS[1:])}, what differs")
    convention = settings.get("convention", "authors")
    if convention not in CONVENTIONS:
        raise ConfigError(f"{key}.convention={convention} but expected one of {', '.join(CONVENTIONS)}")
    try:
        data = find_data(name, str(settings["data"]))
        if name == vrt_bench.NAME:
            masked = vrt_bench.load(data)
            chosen = _part(masked, settings.get("items"), name, seed)
            questions = list(map(vrt_run.as_question, chosen))
            prompt = system_prompt or vrt_run.system_prompt(model.path)
            return MaskValidation(questions, len(masked), convention, chosen, prompt, model.prefill)
        items = RUNNABLE[name].load(data)
        part = _part(items, settings.get("items"), name, seed)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from error
    if system_prompt is None and name in CHOICE:
        system_prompt = SYSTEM_PROMPT
    return AnswerValidation(part, len(items), convention, RUNNABLE[name], system_prompt)


def _part(items: Sequence[_T], count: Any, name: str, seed: int) -> Sequence[_T]:
    """Return `count` items (None: all), the same ones for the same seed, in the order of the file."""
    total = len(items)
    if count is None:
        return items
    if type(count) is not int or not 1 <= count <= total:
        raise ConfigError(f"validation.benchmarks.{name}.items={count} but expected 1 to {total}, or null for all")
    return [items[index] for index in sorted(random.Random(f"{seed}:{name}").sample(range(total), count))]
