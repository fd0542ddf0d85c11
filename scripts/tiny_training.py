"""What the scripts that train the shipped tiny models share: arguments, steps of the optimiser, and the record."""

import argparse
import json
import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser, steps: int) -> None:
    """Add what every model's training can be told; `steps` is the default."""
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument("--steps", type=int, default=steps, help="optimiser steps")
    parser.add_argument("--batch", type=int, default=16, help="samples a step")
    parser.add_argument("--lr", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and data")
    parser.add_argument("--heldout", type=int, default=500, help="scenes of the final measurement")
    parser.add_argument("--log-every", type=int, default=100, help="steps between two log lines")


class Learner:
    """An optimiser with linear warm-up and a cosine to a twentieth, gradients clipped at 1; it logs the mean loss.

    Args:
        optimizer: of the parameters that train.
        args: of `add_arguments`.
        warmup: steps until the peak.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, args: argparse.Namespace, warmup: int) -> None:
        self._optimizer, self._log_every = optimizer, args.log_every
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: (
                min(1, (step + 1) / warmup) * (0.05 + 0.475 * (1 + math.cos(math.pi * min(1, step / args.steps))))
            ),
        )
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._start, self._losses = time.process_time(), list[float]()

    def learn(self, loss: torch.Tensor) -> None:
        """Take one step against a loss."""
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimizer.step()
        self._schedule.step()
        self._losses.append(loss.item())
        if len(self._losses) % self._log_every == 0:
            recent = self._losses[-self._log_every :]
            mean, seconds = sum(recent) / len(recent), time.process_time() - self._start
            logger.info("step %d loss %.4f, %.0f CPU-s", len(self._losses), mean, seconds)


def write_record(args: argparse.Namespace, cpu_seconds: float, measured: Mapping[str, Any]) -> None:
    """Write `training.json` beside the weights: the settings, what it cost, and what was measured."""
    settings = {name: str(value) for name, value in vars(args).items() if name != "out"}
    record = {"settings": settings, "cpu_seconds": round(cpu_seconds), **measured}
    (args.out / "training.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    logger.info("%s", record)
