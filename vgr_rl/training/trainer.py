"""verl's synchronous trainer with evidence metrics, a run log, guards and a reproducible data order."""

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import transfer_queue as tq
from omegaconf import DictConfig, open_dict
from PIL import Image
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1 import PPOTrainerSync, register_trainer
from verl.utils import tensordict_utils as tu
from verl.utils.dataset.rl_dataset import collate_fn

from vgr_rl.errors import ConfigError
from vgr_rl.judge.pool import PoolRewards
from vgr_rl.monitoring.dashboard import add_tensorboard_layout
from vgr_rl.monitoring.pictures import RolloutPictures, trackers
from vgr_rl.training import advantage, stop
from vgr_rl.training.actors import actors_of
from vgr_rl.training.checkpoint_manifest import prune, seal, write_manifest
from vgr_rl.training.data_order import batch_indices
from vgr_rl.training.evidence_metrics import step_metrics
from vgr_rl.training.fast_start import FastStartMixin
from vgr_rl.training.fast_step import FastStepMixin
from vgr_rl.training.grading import to_json
from vgr_rl.training.guards import Guards, GuardTripped, RewardsFailing
from vgr_rl.training.mask_rewards import MaskRewardsMixin
from vgr_rl.training.reserved_pools import PlacementMixin
from vgr_rl.training.reward_manager import DETAIL
from vgr_rl.training.run_log import RunLog
from vgr_rl.training.validation_mixin import ValidationMixin
from vgr_rl.training.watchdog import Watchdog

MODE = "evidence"


class LastLog:
    """The last of verl's loggers: what has to wait for a step's numbers comes behind it."""

    def __init__(self, run_log: RunLog, then: Callable[[], None]) -> None:
        self._run_log, self._then = run_log, then

    def log(self, data: Mapping[str, Any], step: int) -> None:
        """Append one step's numbers."""
        self._run_log.log(data, step)
        self._then()


@register_trainer(MODE)
class EvidenceTrainer(MaskRewardsMixin, PlacementMixin, ValidationMixin, FastStartMixin, FastStepMixin, PPOTrainerSync):
    """GRPO with rollouts and policy in lockstep (`trainer.v1.trainer_mode=evidence`)."""

    def __init__(self, config: DictConfig) -> None:
        self._keep = config.trainer.max_actor_ckpt_to_keep
        with open_dict(config):
            config.trainer.v1.trainer_mode = "sync"  # verl's base class branches on this name
            config.trainer.max_actor_ckpt_to_keep = None  # verl removes old ones before the new one has its manifest
        super().__init__(config)
        self.run_log = RunLog(config.run_dir)
        self._unsealed: tuple[Path, str] | None = None
        self._index_of_uid: dict[str, int] = {}
        limits = config.guards
        self.guards = Guards(
            limits.min_logprob_correlation,
            limits.min_correlation_tokens,
            limits.max_flat_group_rate,
            limits.max_reward_failure_rate,
            limits.window,
            config.judge.get("max_failure_rate", 1.0),
            dict(limits.hacking_limits),
        )
        self.watchdog = Watchdog(
            limits.stage_timeout_s,
            limits.ping_timeout_s,
            partial(actors_of, self),
            lambda reason: self.run_log.event(reason, "error"),
        ).start()

    # ---- stages, for the watchdog -----------------------------------------------------------------------------

    def init(self) -> None:
        """Start the workers and load the checkpoint to resume from."""
        self.watchdog.enter("start workers")
        super().init()
        if isinstance(self.reward_loop_manager, PoolRewards):
            try:
                self.reward_loop_manager.watch(self.run_log.event)
            except ConfigError as error:
                self.run_log.event(str(error), "error")
                raise

    def fit(self, agent_loop_manager: Any) -> None:
        """Train to the end; verl ends the actors afterwards."""
        try:
            super().fit(agent_loop_manager)
        finally:
            self.watchdog.stop()

    def on_train_begin(self) -> None:
        """Attach the run log to verl's loggers."""
        self._attach_run_log(done=self.global_steps - 1)  # verl has gone on to the first step to do
        super().on_train_begin()

    def on_validate_begin(self) -> None:
        """Attach the run log to verl's loggers: validation may come before training."""
        self._attach_run_log(done=self.global_steps)
        self.watchdog.enter("validation")
        super().on_validate_begin()

    def _attach_run_log(self, done: int) -> None:
        if "run_log" not in self.logger.logger:
            self.run_log.forget_after(done)
            self.pictures = RolloutPictures(
                trackers(self.logger.logger),
                **self.config.pictures,
                unreadable=lambda problem: self.run_log.event(problem, "warning"),
            )
            if "tensorboard" in self.logger.logger:
                add_tensorboard_layout(self.logger.logger["tensorboard"].writer)
            self.logger.logger["run_log"] = LastLog(self.run_log, self._seal_checkpoint)

    def on_step_begin(self) -> None:
        """End the run here if somebody asks for it.

        Raises:
            Stopped: after a checkpoint of the last step.
        """
        if (reason := stop.requested(self.config.run_dir)) is not None:
            self.global_steps -= 1
            if self.global_steps:
                self._save_unless_saved()
            raise stop.Stopped(f"stopped by {reason} after step {self.global_steps}")
        super().on_step_begin()

    def on_sample_begin(self) -> None:
        """Mark the rollout stage."""
        self.watchdog.enter("rollout")
        super().on_sample_begin()

    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        self.watchdog.enter("log-probs")
        return super()._compute_old_log_prob(batch, metrics)

    def _update_actor(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        self.watchdog.enter("policy update")
        return super()._update_actor(batch, metrics)

    def _save_checkpoint(self) -> None:
        self.watchdog.enter("save")
        folder, started_s = self._checkpoint_folder(), time.monotonic()
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was interrupted here
        super()._save_checkpoint()
        size = write_manifest(folder, sealed=False)
        self._unsealed = folder, f"saved {folder} ({size / 1e6:.1f} MB in {time.monotonic() - started_s:.1f} s)"

    def _seal_checkpoint(self) -> None:
        """Let the checkpoint count whose step is logged now: a run that goes on from it would not log that again."""
        if self._unsealed is not None:
            (folder, message), self._unsealed = self._unsealed, None
            seal(folder)
            prune(folder, self._keep)
            self.run_log.event(message)

    def _save_unless_saved(self) -> None:
        if self._saved_step != self.global_steps:
            self._save_checkpoint()
        self._seal_checkpoint()

    def _checkpoint_folder(self) -> Path:
        return Path(self.config.trainer.default_local_dir) / f"global_step_{self.global_steps}"

    def on_step_end(self) -> None:
        """Send the new weights to the rollout engine."""
        self.watchdog.enter("weight sync")
        super().on_step_end()

    # ---- data order -------------------------------------------------------------------------------------------

    def _fetch_one_gen_batch(self) -> Any:
        """Return the prompts of the current step; which ones depends on the seed and the step alone.

        DAPO refills filtered groups prompt by prompt (`data.gen_batch_size` 1): there verl's own order is kept.
        """
        data = self.config.data
        if (data.get("gen_batch_size", None) or data.train_batch_size) != data.train_batch_size:
            return super()._fetch_one_gen_batch()
        indices = batch_indices(
            data.seed, self.global_steps, len(self.train_dataset), data.train_batch_size, data.shuffle
        )
        rows = collate_fn([self.train_dataset[index] for index in indices])
        uids = [f"step{self.global_steps}-prompt{position}" for position in range(len(indices))]
        self._index_of_uid = dict(zip(uids, indices, strict=True))
        rows["uid"] = np.array(uids, dtype=object)
        return tu.get_tensordict(rows)

    # ---- advantages -------------------------------------------------------------------------------------------

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        self.watchdog.enter("advantages")
        scores = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["rm_scores"])
        failed = bool(scores["rm_scores"].values().isnan().any())
        if failed and self.config.algorithm.adv_estimator != advantage.NAME:
            raise GuardTripped(
                f"a reward failed and algorithm.adv_estimator={self.config.algorithm.adv_estimator} cannot leave it "
                f"out; use algorithm.adv_estimator={advantage.NAME}"
            )
        batch = super()._compute_advantage(batch, metrics)
        if failed:  # verl averages rm_scores for its own metrics, which know no failures
            scores["rm_scores"].values().nan_to_num_(0.0)
            tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=scores)
        return batch

    # ---- metrics ----------------------------------------------------------------------------------------------

    def _compute_metrics(
        self, batch: KVBatchMeta, metrics: dict[str, Any], timing_raw: dict[str, float], global_steps: int, epoch: int
    ) -> None:
        super()._compute_metrics(batch, metrics, timing_raw, global_steps, epoch)
        rows = self._rollout_rows(batch)
        metrics.update(step_metrics(rows))
        if isinstance(self.reward_loop_manager, PoolRewards):
            metrics["judge/restarts"] = float(self.reward_loop_manager.restarts)
        self.run_log.samples(self._sample_lines(rows))
        self.pictures.train(rows, global_steps, self._image)
        metrics["timing_s/pictures"] = self.pictures.taken_s()  # of this step's validation, too
        response_tokens = sum(row["length"] for row in rows)
        try:
            for warning in self.guards.check(metrics, response_tokens):
                self.run_log.event(f"step {global_steps}: {warning}", "warning")
        except GuardTripped as error:
            self.run_log.log(metrics, global_steps)
            self.run_log.event(str(error), "error")
            if isinstance(error, RewardsFailing):
                self._save_unless_saved()
            raise

    def _val_metrics_update(
        self, data_sources: Any, sample_uids: Any, reward_extra_infos_dict: dict[str, Any], *args: Any, **kwargs: Any
    ) -> dict[str, float]:
        if self.asked is None:  # these are the responses to data.val_files
            self._show_validation(reward_extra_infos_dict.get(DETAIL, []))
        metrics: dict[str, float] = super()._val_metrics_update(
            data_sources, sample_uids, reward_extra_infos_dict, *args, **kwargs
        )
        return metrics

    def _show_validation(self, details: list[str]) -> None:
        def key(row: Mapping[str, Any]) -> tuple[str, str]:
            return row["data_source"], row["id"]

        places = {self.val_dataset.key(i): i for i in self.pictures.followed(len(self.val_dataset))}
        rows = {key(row): row for row in map(json.loads, reversed(details)) if key(row) in places}
        followed = [rows[name] for name in places if name in rows]
        self.pictures.validation(followed, self.global_steps, lambda row: self.val_dataset.image(places[key(row)]))

    def _image(self, row: Mapping[str, Any]) -> Image.Image:
        return self.train_dataset.image(self._index(row))

    def _index(self, row: Mapping[str, Any]) -> int:
        """Return where the sample of a rollout stands in the data; DAPO draws its prompts itself."""
        known = self._index_of_uid.get(row["group"])
        return self.train_dataset.index_of(row["data_source"], row["id"]) if known is None else known

    def _rollout_rows(self, batch: KVBatchMeta) -> list[dict[str, Any]]:
        fields = ["extra_fields", "advantages"]
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
        advantages = [float(row[0]) if len(row) else 0.0 for row in data["advantages"].unbind()]
        extras = data.pop("extra_fields").tolist()
        max_length = self.config.data.max_response_length
        rows = []
        for key, tag, extra, row_advantage in zip(batch.keys, batch.tags, extras, advantages, strict=True):
            if tag.get("is_padding", False):
                continue
            group, rollout, _ = key.rsplit("_", 2)
            row = json.loads(extra["reward_extra_info"][DETAIL]) | {"group": group}
            row |= {
                "image": self._image_reference(row),
                "step": self.global_steps,
                "split": "train",
                "rollout": int(rollout),
                "advantage": row_advantage if math.isfinite(row_advantage) else None,
                "truncated": row["length"] >= max_length,
            }
            rows.append(row)
        order = {group: number for number, group in enumerate(self._index_of_uid)}
        return sorted(rows, key=lambda row: (order.get(row["group"], len(order)), row["group"], row["rollout"]))

    def _image_reference(self, row: Mapping[str, Any]) -> dict[str, Any]:
        file, place = self.train_dataset.source(self._index(row))
        return {"parquet": file, "row": place}

    def _sample_lines(self, rows: list[dict[str, Any]]) -> list[str]:
        """Return the rollouts to be logged as lines; `targets`, which may hold large masks, once a group."""
        every = self.config.log_every_nth_group
        if not every:
            return []
        groups: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            groups.setdefault(row["group"], []).append(row)
        lines = []
        for first, *others in list(groups.values())[::every]:
            lines += [to_json(first), *(to_json({key: row[key] for key in row if key != "targets"}) for row in others)]
        return lines
