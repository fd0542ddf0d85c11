"""Restarts a run that ends by a fault: the parent process of `vgr_rl.main` where `supervise.restarts` is above 0."""

import contextlib
import ctypes
import json
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

import psutil
from omegaconf import DictConfig

from vgr_rl.errors import ConfigError
from vgr_rl.training import stop
from vgr_rl.training.checkpoint_manifest import complete, step_of
from vgr_rl.training.run_log import EVENTS, RunLog
from vgr_rl.training.shared_memory import SegmentGuard

logger = logging.getLogger(__name__)

MAX_BACKOFF_S = 300.0
END_S = 20.0  # for what an attempt left behind
IDLE_ATTEMPTS = 2  # in a row without a new checkpoint: another one would end like them
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_FINAL = (0, 2, stop.EXIT_CODE, *(128 + number for number in _SIGNALS))  # finished, cannot start, asked to end
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def run(config: DictConfig) -> NoReturn:
    """Give this process's command to a child, again when it ends by a fault, and exit with the last one's status.

    Raises:
        ConfigError: `supervise` does not fit.
        SystemExit: always, at the end.
    """
    restarts, backoff_s = config.supervise.restarts, config.supervise.backoff_s
    if not isinstance(restarts, int) or restarts < 0 or not isinstance(backoff_s, int | float) or backoff_s < 0:
        raise ConfigError(f"supervise.restarts={restarts} and supervise.backoff_s={backoff_s} but both count from 0")
    if config.trainer.resume_mode == "disable":
        raise ConfigError(f"supervise.restarts={restarts} but trainer.resume_mode=disable; a restart has to resume")
    run_dir = str(Path(config.run_dir).absolute())  # by default it says when the command was given
    quoted = run_dir.replace("\\", "\\\\").replace("'", "\\'")
    command = [sys.executable, "-m", "vgr_rl.main", *sys.argv[1:], "supervise.restarts=0", f"run_dir='{quoted}'"]
    sys.exit(Supervisor(Path(run_dir), Path(config.trainer.default_local_dir), restarts, backoff_s).run(command))


class Supervisor:
    """Runs a command until it is through, at most 1 + `restarts` times.

    It is through when it finished, when it could not start (status 2), when it was asked to end, or when
    `IDLE_ATTEMPTS` in a row added no checkpoint.

    Args:
        run_dir: where events are written, and read for the reason of a fault.
        checkpoints: folder of the run's checkpoints.
        restarts: how often at most.
        backoff_s: pause before the first restart, seconds; it doubles with each, up to `MAX_BACKOFF_S`.
    """

    def __init__(self, run_dir: Path, checkpoints: Path, restarts: int, backoff_s: float) -> None:
        self.run_dir, self.checkpoints = run_dir, checkpoints
        self.restarts, self.backoff_s = restarts, backoff_s
        self._child: subprocess.Popen[bytes] | None = None
        self._told = threading.Event()

    def run(self, command: list[str]) -> int:
        """Return the exit status of the last attempt; 128 + its number when a signal ended it."""
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)  # what outlives a killed driver becomes our child
        idle, step = 0, self._step()
        with self._forwarded_signals():
            for restart in range(self.restarts + 1):
                events = _size(self.run_dir / EVENTS)
                ended = self._attempt(command)
                status = ended if ended >= 0 else 128 - ended
                if status in _FINAL or self._told.is_set():
                    return status
                before, step = step, self._step()
                idle = 0 if step > before else idle + 1
                what = f"attempt {restart + 1} {_ending(ended)}, {_reason(self.run_dir / EVENTS, events)}"
                if restart == self.restarts or idle == IDLE_ATTEMPTS:
                    limit = (
                        f"supervise.restarts={self.restarts}"
                        if idle < IDLE_ATTEMPTS
                        else f"{IDLE_ATTEMPTS} attempts in a row added no checkpoint (trainer.save_freq)"
                    )
                    self._say(f"{what}; not started again: {limit}", "error")
                    return status
                pause_s = min(MAX_BACKOFF_S, self.backoff_s * 2**restart)
                origin = f"global_step_{step}" if step else "the beginning"
                self._say(f"{what}; restart {restart + 1} of {self.restarts} from {origin} in {pause_s:g} s", "warning")
                if self._told.wait(pause_s):
                    return status
        raise AssertionError("the last attempt returns")

    def _attempt(self, command: list[str]) -> int:
        segments = SegmentGuard()
        self._child = subprocess.Popen(command, start_new_session=True, preexec_fn=_end_with_parent)
        status = self._child.wait()
        self._child = None
        self._end_what_is_left()
        segments.remove_new()
        return status

    def _end_what_is_left(self) -> None:
        deadline_s = time.monotonic() + END_S
        while (left := psutil.Process().children(recursive=True)) and time.monotonic() < deadline_s:
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(left, timeout=1)  # what they had started becomes our child only then

    @contextlib.contextmanager
    def _forwarded_signals(self) -> Iterator[None]:
        """Hand SIGTERM and SIGINT to the child, which is in a session of its own: a terminal would send them twice."""

        def handle(number: int, frame: FrameType | None) -> None:
            self._told.set()
            if self._child is not None:
                self._child.send_signal(number)

        former = {number: signal.signal(number, handle) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    def _step(self) -> int:
        folders = complete(self.checkpoints)
        return step_of(folders[-1]) if folders else 0

    def _say(self, message: str, level: str) -> None:
        logger.log(logging.getLevelName(level.upper()), "%s: %s", level, message)
        try:
            RunLog(self.run_dir).event(message, level)
        except OSError as error:  # a full or read-only disk may be the very fault
            logger.error("%s cannot be written: %s", self.run_dir / EVENTS, error)


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _ending(status: int) -> str:
    return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


def _reason(events: Path, start: int) -> str:
    """Return the first error that was logged behind byte `start`."""
    if _size(events) > start:
        with events.open("rb") as file:
            file.seek(start)
            for line in file.read().splitlines():
                with contextlib.suppress(ValueError):  # what a kill cut off
                    event = json.loads(line)
                    if event["level"] == "error":
                        return " ".join(event["message"].split())[:300]
    return "without a word in events.jsonl"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
