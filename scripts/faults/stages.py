"""Tells the campaign which stage a run enters.

Every process of the run imports it (`VERL_USE_EXTERNAL_MODULES`); the task runner appends to the file of `VGR_STAGES`.
"""

import os

from vgr_rl.training.watchdog import Watchdog

_enter = Watchdog.enter


def _announced(self: Watchdog, stage: str) -> None:
    with open(os.environ["VGR_STAGES"], "a") as file:
        file.write(f"{stage}\n")
    _enter(self, stage)


Watchdog.enter = _announced  # type: ignore[method-assign]
