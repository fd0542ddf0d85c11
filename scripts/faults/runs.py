"""A short run of the tiny recipe that something is done to."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from vgr_rl.prepare import main as prepare

ROOT = Path(__file__).parents[2]
MOMENTS = {"rollout": "rollout", "update": "policy update", "save": "save"}  # as `Watchdog.enter` calls them
START_S = 400
SETUPS = {  # by name: what the data have besides boxes, and overrides; {data} is the folder
    "rules": ([], []),
    "judge": (["--open"], ["judge=pool", "judge.model={data}/judge", "judge.verdict=choice", "judge.cache_dir=null"]),
    "masks": (["--masks"], ["recipe=vrt/tiny_boxes"]),
}
_POLL_S = 0.004  # the save of a tiny model takes 100 times as long


def make_data(folder: Path, setup: str = "rules") -> tuple[Path, list[str]]:
    """Write the rows that the runs of a setup train on; return their folder and the overrides of the setup."""
    options, overrides = SETUPS[setup]
    if not (folder / "train.parquet").exists():
        counts = ["--train", "64", "--val", "4", "--heldout", "4", "--sft", "4", "--sft-val", "4"]
        prepare(["tiny", *options, "--out", str(folder), *counts])
        if setup == "judge":
            prepare(["tiny-judge", "--out", str(folder / "judge")])
    return folder, [override.format(data=folder) for override in overrides]


class NotReached(RuntimeError):
    """A run ended before the moment that was waited for."""


class Run:
    """A run in a process of its own.

    Args:
        folder: gets the run directory, the terminal and the stages.
        data: with the rows.
        overrides: of the configuration.
        steps: how many.
        inside: what the command is put behind; by default its run directory is on a file system of 64 MB that only its
            processes see, which can be filled or made read-only.

    Attributes:
        log: its terminal.
    """

    def __init__(
        self, folder: Path, data: Path, *overrides: str, steps: int, inside: Sequence[str] | None = None
    ) -> None:
        self.run_dir, self.log, self._stages = folder / "run", folder / "terminal.log", folder / "stages"
        self.run_dir.mkdir(parents=True)
        self._stages.touch()
        command = [
            *(sys.executable, "-m", "vgr_rl.main", f"run_dir={self.run_dir}", f"trainer.total_training_steps={steps}"),
            *(f"data.train_files={data}/train.parquet", f"data.val_files={data}/val.parquet", "trainer.save_freq=1"),
            *("data.train_batch_size=2", "actor_rollout_ref.actor.ppo_mini_batch_size=2", "trainer.logger=[]"),
            *("actor_rollout_ref.rollout.n=4", "data.max_response_length=64", *overrides),
        ]
        if inside is None:
            mounted = f'mount -t tmpfs -o size=64m none "{self.run_dir}" && exec "$@"'
            inside = ["unshare", "--map-root-user", "--mount", "sh", "-c", mounted, "sh"]
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "VERL_USE_EXTERNAL_MODULES": "scripts.faults.stages", "PYTHONPATH": paths}
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [*inside, *command],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**environment, "VGR_STAGES": str(self._stages)},
                start_new_session=True,
            )
        self.driver = psutil.Process(self._process.pid)
        self._family: list[psutil.Process] = []

    def reach(self, stage: str, times: int) -> None:
        """Wait until the run enters a stage for this time."""
        deadline = time.monotonic() + START_S
        while self.entered(stage) < times:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise NotReached(f"no stage {stage}: {self.log.read_text()[-3000:]}")
            time.sleep(_POLL_S)

    def entered(self, stage: str) -> int:
        """Return how often the run has entered a stage."""
        return self._stages.read_text().splitlines().count(stage)

    def stage(self) -> str:
        """Return the stage that it entered last."""
        return self._stages.read_text().splitlines()[-1]

    def know_family(self) -> None:
        """Remember the processes that the run consists of now."""
        self._family = [self.driver, *self.driver.children(recursive=True)]

    def wait(self, timeout_s: float) -> int | None:
        """Return the exit status, None when it has not ended by then."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(timeout=timeout_s)
        return None

    def alive(self) -> list[psutil.Process]:
        """Return the processes of the run that are still there, other than those that wait to be reaped."""
        found = []
        for process in self._family:
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def end(self) -> None:
        """Kill what is left of it."""
        for process in [*self.alive(), *(self.driver.children(recursive=True) if self.driver.is_running() else [])]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
