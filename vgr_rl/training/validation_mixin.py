"""Validation on benchmarks and the best checkpoint by it: a mixin, `class T(ValidationMixin, …, PPOTrainerSync)`.

verl validates on `val_dataloader` alone. Here each benchmark takes its place in turn, greedily and with one response a
question, and what verl would make of the responses is replaced by the benchmark's own scores.
"""

import asyncio
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, open_dict
from verl.utils.dataset.rl_dataset import collate_fn

from vgr_rl.benchmarks.predictions import Prediction
from vgr_rl.benchmarks.store import write_json, write_text
from vgr_rl.data.schema import Row, sample_to_json
from vgr_rl.errors import ConfigError
from vgr_rl.segment.auto import is_r_sa2va
from vgr_rl.segment.server import running_client
from vgr_rl.training.best_checkpoint import BestCheckpoint
from vgr_rl.training.dataset import with_images
from vgr_rl.training.model_spec import ModelSpec
from vgr_rl.training.reward_manager import DETAIL
from vgr_rl.training.run_log import RunLog
from vgr_rl.training.shards import shard_files
from vgr_rl.training.validation import as_row, load_validations, read_responses
from vgr_rl.training.validation_benchmarks import MaskValidation, Validation

_BATCH = 128  # prompts whose images are decoded together, where data.val_batch_size says nothing


class ValidationMixin:
    """Overrides of `PPOTrainer`; put it first among the bases.

    Attributes:
        asked: the benchmark whose questions are being answered; None while data.val_files are, or nothing is.
    """

    val_dataloader: Any

    def __init__(self, config: DictConfig) -> None:
        super().__init__(config)
        model, settings = config.model, config.validation
        self._spec = ModelSpec.load(model.path, model.frame, model.min_pixels, model.max_pixels)
        self._validations = load_validations(config)
        self.asked: Validation | None = None
        self._best: BestCheckpoint | None = None
        if settings.best_metric is not None:
            folder = config.trainer.default_local_dir
            self._best = BestCheckpoint(folder, settings.best_metric, settings.best_mode)
        self._saved_step = -1
        self._log = RunLog(config.run_dir)

    def _init_dataloader(self) -> None:
        data = self.config.data
        if not data.val_files:  # torch makes loaders of nothing only in order, and of a batch
            with open_dict(data):
                data.val_batch_size, data.validation_shuffle = data.val_batch_size or _BATCH, False
        super()._init_dataloader()

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()
        self._saved_step = self.global_steps

    def _save_checkpoint(self) -> None:
        super()._save_checkpoint()
        self._saved_step = self.global_steps

    def _validate(self) -> dict[str, float]:
        metrics: dict[str, float] = super()._validate() if self.config.data.val_files else {}
        usual = self.val_dataloader
        try:
            for validation in self._validations:
                self.on_validate_begin()
                self.asked = validation
                self.val_dataloader = batches(validation, self.config.data.val_batch_size or _BATCH)
                metrics |= super()._validate()
        finally:
            self.val_dataloader, self.asked = usual, None
        if self._best is not None:
            try:
                self._keep_best(self._best, metrics)
            except ConfigError as error:
                self._log.event(str(error), "error")
                raise
        return metrics

    def _val_metrics_update(
        self,
        data_sources: list[str],
        sample_uids: list[str],
        reward_extra_infos_dict: dict[str, list[Any]],
        sample_turns: list[int],
        **expected: Any,
    ) -> dict[str, float]:
        if self.asked is None:
            return super()._val_metrics_update(
                data_sources, sample_uids, reward_extra_infos_dict, sample_turns, **expected
            )
        spec, asked = self._spec, self.asked
        max_length = self.config.data.max_response_length
        details = reward_extra_infos_dict[DETAIL]
        said = read_responses(details, max_length, spec.frame, spec.resize_rule, self.config.model.prefill)
        path = Path(self.config.run_dir) / "validation" / asked.name / f"step_{self.global_steps}.json"
        responses = said
        if isinstance(asked, MaskValidation) and not is_r_sa2va(self.config.model.path):
            responses = self._with_masks(asked, said)
        answered = [question.key for question in asked.questions if question.key in responses]
        raw = {key: {} if responses is said else {"raw": said[key].response} for key in answered}
        lines = [json.dumps(as_row(responses[key]) | raw[key], ensure_ascii=False) for key in answered]
        write_text(path.with_suffix(".jsonl"), "".join(f"{line}\n" for line in lines))
        if responses is not said and any(responses[key].masks is None for key in answered):
            return {}
        result = asked.score(responses, f"{Path(self.config.run_dir).name}, step {self.global_steps}")
        write_json(path, result)
        return asked.metrics(result)

    def _with_masks(self, asked: MaskValidation, said: dict[str, Prediction]) -> dict[str, Prediction]:
        """Ask the SAM2 servers for the masks of all boxes; what they do not answer is told."""
        settings = self.config.segmenter
        client = running_client(settings.servers, settings.timeout_s)
        in_flight = min(settings.queue, 2 * settings.batch * settings.servers)
        responses, failed = asyncio.run(asked.with_masks(said, client, self.global_steps, in_flight))
        if failed:
            self._log.event(
                f"{asked.name} has no scores in step {self.global_steps}: the SAM2 servers failed for {len(failed)} of "
                f"{len(said)} responses; {failed[0]}",
                "error",
            )
        return responses

    def _keep_best(self, best: BestCheckpoint, metrics: dict[str, float]) -> None:
        known = {name for validation in self._validations for name in validation.metric_names()}
        if best.metric not in metrics and best.metric in known:
            self._log.event(f"step {self.global_steps} is not compared: {best.metric} is not known", "warning")
            return
        value, step = best.value(metrics), self.global_steps
        if not step or not best.is_better(value):  # the model that the run starts from is no checkpoint
            return
        checkpoint = Path(self.config.trainer.default_local_dir) / f"global_step_{step}"
        if self._saved_step != step or not checkpoint.is_dir():
            self._save_checkpoint()
        try:
            shard_files(checkpoint / "actor")
        except ValueError as error:
            raise ConfigError(
                f"validation.best_metric needs a trainer.default_local_dir that all nodes share: {error}"
            ) from error
        best.keep(checkpoint, step, value)
        self._log.event(f"best checkpoint so far: step {step}, {best.metric} {value:.4g}, in {best.folder}")


def batches(validation: Validation, size: int) -> Iterator[dict[str, Any]]:
    """Yield what verl's `_validate` takes from a data loader; images are read when it is their batch's turn."""
    records = (_record(index, row) for index, row in enumerate(validation.rows()))
    while batch := list(islice(records, size)):
        yield collate_fn(batch)


def _record(index: int, row: Row) -> dict[str, Any]:
    """Return a question as `EvidenceDataset` returns its rows."""
    return {
        "raw_prompt": with_images(row.prompt, row.images),
        "data_source": row.sample.data_source,
        "reward_model": {"style": "rule", "ground_truth": row.sample.answer},
        "extra_info": {"index": index, "split": "val", "sample": sample_to_json(row.sample)},
        "index": index,
        "tools_kwargs": {},
        "interaction_kwargs": {},
        "dummy_tensor": torch.tensor([0], dtype=torch.uint8),
        "__rollout_n__": 1,
        "__do_sample__": False,
    }
