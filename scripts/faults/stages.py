"""Tells the campaign which stage a run enters.

Every process of the run imports it (`VERL_USE_EXTERNAL_MODULES`); the task runner appends to the file of `VGR_STAGES`.
From the first step on a stage is overdue after `STAGE_TIMEOUT_S`: it takes a second, but the start, with its imports,
takes minutes.
"""

import os

from vgr_rl.training.watchdog import Watchdog

STAGE_TIMEOUT_S = 30.0
_enter = Watchdog.enter


def _announced(self: Watchdog, stage: str) -> None:
    with open(os.environ["VGR_STAGES"], "a") as file:
        file.write(f"{stage}\n")
    if stage != "start workers":
        self.stage_timeout_s = STAGE_TIMEOUT_S
    _enter(self, stage)


Watchdog.enter = _announced  # type: ignore[method-assign]
