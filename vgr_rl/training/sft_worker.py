"""One training process of the cold start: verl's SFT trainer with a seeded order, exact resume and kept metrics."""

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from omegaconf import DictConfig, OmegaConf
from tensordict import TensorDict
from verl.trainer import sft_trainer
from verl.utils import tensordict_utils
from verl.utils.checkpoint import CheckpointHandler
from verl.utils.distributed import destroy_global_process_group, initialize_global_process_group
from verl.utils.tracking import Tracking

from vgr_rl.segment.auto import is_r_sa2va
from vgr_rl.training import stop
from vgr_rl.training.checkpoint_manifest import prune, write_manifest
from vgr_rl.training.run_log import RunLog
from vgr_rl.training.segment_loss import METRICS, SegmentLoss, ValidatedBatch, whole_batch, whole_validation

logger = logging.getLogger("vgr_rl.sft")


class ExactResume(CheckpointHandler):
    """Complete checkpoints, and a resume with the batch after the last one trained on, also when that ended an epoch.

    The loader's state at the end of an epoch says "exhausted". verl loads it into the next epoch, which is then
    skipped; a fresh loader is what that epoch needs.

    Args:
        keep: how many stay; verl would remove old ones before the new one has its manifest.
    """

    def __init__(self, *args: Any, keep: int | None, **kwargs: Any) -> None:
        super().__init__(*args, max_ckpt_to_keep=None, **kwargs)
        self.keep = keep
        self.saved_step: int | None = None

    def save_checkpoint(self, step: int) -> None:
        """Write a checkpoint, and its manifest when every process has written its part."""
        folder = Path(self.default_local_dir) / f"global_step_{step}"
        if self.rank == 0:
            shutil.rmtree(folder, ignore_errors=True)  # of a run that was interrupted here
        torch.distributed.barrier()
        super().save_checkpoint(step)
        torch.distributed.barrier()
        if self.rank == 0:
            write_manifest(folder)
            prune(folder, self.keep)
        self.saved_step = step

    def _load_dataloader_state(self, checkpoint_path: str) -> None:
        if self.resume_global_step % len(self.train_dataloader) != 0:
            super()._load_dataloader_state(checkpoint_path)


class RunTracking(Tracking):
    """verl's trackers plus step times, a console line every n-th step, and our metrics file."""

    def __init__(
        self,
        *args: Any,
        run_log: RunLog,
        total_steps: int,
        log_every: int,
        of_batch: Callable[[dict[str, Any]], dict[str, Any]],
        of_validation: Callable[[], dict[str, float]],
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.run_log = run_log
        self.of_batch, self.of_validation = of_batch, of_validation
        self.total_steps, self.log_every = total_steps, log_every
        self.last_time = self.start_time = time.monotonic()
        self.first_step: int | None = None

    def log(self, data: dict[str, Any], step: int, backend: Any = None) -> None:
        """Send the metrics of a step to every tracker."""
        if "train/loss" in data:
            now = time.monotonic()
            data = {**self.of_batch(data), "timing_s/step": now - self.last_time}
            self.last_time = now
            self._say(data, step, now)
        elif "val/loss" in data:
            data = {**data, **self.of_validation()}
            numbers = "  ".join(f"{name.removeprefix('val/').replace('_', ' ')} {data[name]:.4f}" for name in data)
            logger.info("step %d/%d  validation %s", step, self.total_steps, numbers)
            self.last_time = time.monotonic()
        self.run_log.log(data, step)
        super().log(data=data, step=step, backend=backend)

    def _say(self, data: dict[str, Any], step: int, now: float) -> None:
        self.first_step = step if self.first_step is None else self.first_step
        if step % self.log_every and step != self.total_steps:
            return
        done = step - self.first_step + 1
        left_s = (self.total_steps - step) * (now - self.start_time) / done
        logger.info(
            "step %d/%d  loss %.4f  lr %.2e  %.2f s/step  %.0f s left",
            *(step, self.total_steps, data["train/loss"], data["train/lr"], data["timing_s/step"], left_s),
        )


class ColdStartTrainer(sft_trainer.SFTTrainer):
    """verl's SFT trainer, with what it leaves out: the seed of the data order and an exact resume."""

    def _build_dataloader(self) -> None:
        super()._build_dataloader()
        self.train_sampler.seed = self.config.trainer.seed

    def _build_ckpt_handler(self) -> None:
        trainer = self.config.trainer
        self.ckpt_handler = ExactResume(
            engine=self.engine,
            train_dataloader=self.train_dataloader,
            default_local_dir=trainer.default_local_dir,
            keep=trainer.max_ckpt_to_keep,
            default_hdfs_dir=trainer.default_hdfs_dir,
            resume_mode=trainer.resume_mode,
            resume_from_path=trainer.resume_from_path,
            lora_train_meta=self._get_lora_train_meta(),
        )

    def fit(self) -> None:
        """Train from the resumed step to the last one."""
        if self.val_dataloader is None:
            self.test_freq = -1  # verl validates every test_freq steps also when there is nothing to validate on
        run_log = RunLog(self.config.run_dir)
        steps, log_every = self.total_training_steps, self.config.log_every

        def tracking(*args: Any, **kwargs: Any) -> RunTracking:
            run_log.forget_after(self.resume_global_step)
            return RunTracking(
                *args,
                run_log=run_log,
                total_steps=steps,
                log_every=log_every,
                of_batch=self.of_batch,
                of_validation=self.of_validation,
                **kwargs,
            )

        # `fit` takes no trackers; instead of a progress bar, of which the console line of `RunTracking` says more:
        with mock.patch.multiple(sft_trainer, Tracking=tracking, tqdm=self._until_asked_to_end):
            super().fit()

    def _until_asked_to_end(self, batches: Iterable[Any], initial: int, **_: Any) -> Iterator[Any]:
        """Yield the batches of an epoch; once somebody asks for the end, save behind the step and raise Stopped."""
        epoch = self.train_sampler.epoch
        for step, batch in enumerate(batches, start=epoch * self.steps_per_epoch + initial + 1):
            yield batch
            if (reason := _of_first_process(stop.requested(self.config.run_dir))) is not None:
                if self.ckpt_handler.saved_step != step:
                    self.ckpt_handler.save_checkpoint(step)
                raise stop.Stopped(f"stopped by {reason} after step {step}")

    def of_batch(self, metrics: dict[str, Any]) -> dict[str, Any]:
        """Return the metrics of a training step as they are logged."""
        return metrics

    def of_validation(self) -> dict[str, float]:
        """Return what else the validation that has just ended found."""
        return {}


class SegmentTrainer(ColdStartTrainer):
    """The cold start of R-Sa2VA: the loss of its masks, and their IoU while training and in validation."""

    def _build_engine(self) -> None:
        super()._build_engine()
        masks = self.config.masks
        self.engine.train_embeddings = masks.train_embeddings
        side = self.model_config.hf_config.sam2_config.prompt_encoder_config.image_size
        loss = SegmentLoss(side, masks.points, masks.per_image, masks.bce_weight, masks.dice_weight)
        self.training_client.set_loss_fn(loss)
        self.validated: list[ValidatedBatch] = []
        infer = self.training_client.infer_batch

        def infer_batch(data: TensorDict) -> TensorDict:  # `fit` keeps the loss of a validation batch and nothing else
            output = infer(data)
            metrics = whole_batch(tensordict_utils.get(output, "metrics"))
            self.validated.append(ValidatedBatch(metrics, data["all_mask_rows"], data["all_masks"]))
            return output

        self.training_client.infer_batch = infer_batch

    def of_batch(self, metrics: dict[str, Any]) -> dict[str, Any]:
        """Return the metrics of a training step, those of its masks put together."""
        others = {name: value for name, value in metrics.items() if name not in METRICS}
        return {**others, **{f"train/{name}": value for name, value in whole_batch(metrics).items()}}

    def of_validation(self) -> dict[str, float]:
        """Return the means over the validation that has just ended."""
        batches, self.validated = self.validated, []
        return {f"val/{name}": value for name, value in whole_validation(batches).items()}


def _of_first_process(reason: str | None) -> str | None:
    """Return what the first process found: the others may have looked a moment too early."""
    agreed = [reason]
    torch.distributed.broadcast_object_list(agreed, src=0)
    return agreed[0]


def train(config: DictConfig) -> None:
    """Train in this process; RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT are set, as by torchrun.

    Raises:
        Stopped: somebody asked for the end; everything up to here is in a checkpoint.
    """
    initialize_global_process_group()
    log = Path(config.run_dir) / f"train_{os.environ['RANK']}.log"
    try:
        with log.open("a", encoding="utf-8") as file, contextlib.redirect_stdout(file):  # verl prints
            torch.manual_seed(config.seed)
            verl_config = OmegaConf.masked_copy(
                config, [str(key) for key in config if key not in ("hydra", "hardware")]
            )
            trainer = SegmentTrainer if is_r_sa2va(config.model.path) else ColdStartTrainer
            trainer(verl_config).fit()
    finally:
        destroy_global_process_group()


def main() -> None:
    """Train with the configuration file that VGR_SFT_CONFIG names; started by torchrun, one process a device."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("vgr_rl").setLevel(logging.INFO)
    with contextlib.suppress(stop.Stopped):  # its parent knows
        train(OmegaConf.load(os.environ["VGR_SFT_CONFIG"]))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
