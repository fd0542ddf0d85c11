"""Which rollouts are shown, and when; the trackers show them."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig
from PIL import Image

from vgr_rl.benchmarks.summary import ordinal
from vgr_rl.monitoring.overlay import overlay
from vgr_rl.monitoring.trackers import Rows, TensorboardTracker, Tracker, WandbTracker

TRAIN, VALIDATION = "rollouts", "validation"
SHOWN_BY = ("wandb", "tensorboard")

FindImage = Callable[[Mapping[str, Any]], Image.Image]
"""Finds the decoded image of a rollout; an OSError says that it cannot be read."""

logger = logging.getLogger(__name__)


def problems(config: DictConfig) -> list[str]:
    """Return what is wrong with the keys of `pictures`."""
    return [
        f"pictures.{key}={value} but expected a whole number, 0 (none) or more"
        for key, value in config.pictures.items()
        if isinstance(value, bool) or not isinstance(value, int) or value < 0
    ]


def shown_by(config: DictConfig) -> list[str]:
    """Return the trackers among `trainer.logger` that show pictures."""
    names = config.trainer.logger
    return [name for name in SHOWN_BY if name in ([names] if isinstance(names, str) else names)]


def described(config: DictConfig) -> str:
    """Return what will be shown, for the plan of a run."""
    pictures, trackers = config.pictures, shown_by(config)
    if not trackers:
        return f"none: trainer.logger has none of {', '.join(SHOWN_BY)}"
    every = pictures.every_n_steps
    train = f"{pictures.rollouts} rollouts of {f'the first and every {ordinal(every)}' if every > 1 else 'every'} step"
    frequency = config.trainer.test_freq
    validates = frequency > 0 or config.trainer.val_before_train
    followed = f"{pictures.validation} validation items when it validates (trainer.test_freq={frequency})"
    shown = [train] * bool(every and pictures.rollouts) + [followed] * bool(pictures.validation and validates)
    unseen = "" if validates else f"; no validation items: nothing validates (trainer.test_freq={frequency})"
    return f"{' and '.join(shown) or 'none'} in {' and '.join(trackers)}{unseen}"


def trackers(loggers: Mapping[str, Any]) -> list[Tracker]:
    """Return the trackers of verl's `Tracking.logger` that show pictures."""
    found: list[Tracker] = []
    if "wandb" in loggers:
        found.append(WandbTracker(loggers["wandb"]))
    if "tensorboard" in loggers:
        found.append(TensorboardTracker(loggers["tensorboard"].writer))
    return found


class RolloutPictures:
    """Shows rollouts of a training step now and then, and the same validation items each time.

    Args:
        trackers: where to.
        every_n_steps: the first and every n-th step is shown; 0 shows none.
        rollouts: how many rollouts of such a step, each of another prompt, spread over the step.
        validation: how many validation items.
        unreadable: is told when a picture cannot be read or drawn; the step goes on without it.
    """

    def __init__(
        self,
        trackers: Sequence[Tracker],
        every_n_steps: int,
        rollouts: int,
        validation: int,
        unreadable: Callable[[str], None] = logger.warning,
    ) -> None:
        self._trackers = trackers
        self._every_n_steps, self._rollouts, self._validation = every_n_steps, rollouts, validation
        self._unreadable = unreadable
        self._taken_s = 0.0

    def taken_s(self) -> float:
        """Return the seconds that drawing and showing took since the last call."""
        taken_s, self._taken_s = self._taken_s, 0.0
        return taken_s

    def train(self, rows: Rows, step: int, image: FindImage) -> None:
        """Show the first rollout of some groups.

        Args:
            rows: the rollouts of the step, group by group.
            step: from 1.
            image: finds the image of a row.
        """
        if not self._trackers or not self._every_n_steps or not (step == 1 or step % self._every_n_steps == 0):
            return
        first_of_group = {row["group"]: row for row in reversed(rows)}
        ordered = [first_of_group[group] for group in dict.fromkeys(row["group"] for row in rows)]
        self._show(TRAIN, [ordered[i] for i in spread(len(ordered), self._rollouts)], step, image)

    def followed(self, items: int) -> list[int]:
        """Return which of the validation items, by their place in the data, are followed."""
        return spread(items, self._validation) if self._trackers else []

    def validation(self, rows: Rows, step: int, image: FindImage) -> None:
        """Show the rollouts of the items that are followed, in the order of the data."""
        self._show(VALIDATION, rows, step, image)

    def _show(self, name: str, rows: Rows, step: int, image: FindImage) -> None:
        started_s = time.perf_counter()
        shown: list[Mapping[str, Any]] = []
        pictures: list[list[Any]] = [[] for _ in self._trackers]
        for row in rows:
            try:
                laid = overlay(row, image(row))
                encoded = [tracker.encode(laid) for tracker in self._trackers]
            except (OSError, ValueError) as error:
                self._unreadable(f"step {step}: no picture of sample {row['id']}: {error}")
                continue
            shown.append(row)
            for of_tracker, picture in zip(pictures, encoded, strict=True):
                of_tracker.append(picture)
        if shown:
            for tracker, of_tracker in zip(self._trackers, pictures, strict=True):
                tracker.show(name, shown, of_tracker, step)
        self._taken_s += time.perf_counter() - started_s


def spread(items: int, count: int) -> list[int]:
    """Return `count` places that are spread evenly over `items`, or all of them.

    Example:
        >>> spread(8, 3), spread(2, 4)
        ([0, 2, 5], [0, 1])
    """
    count = min(items, count)
    return [place * items // count for place in range(count)]
