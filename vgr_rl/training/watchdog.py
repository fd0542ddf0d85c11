"""Ends a run whose stage does not finish, naming the actors that do not answer."""

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

logger = logging.getLogger(__name__)

EXIT_CODE = 70


def unanswering(actors: Mapping[str, Any], timeout_s: float) -> list[str]:
    """Return the names of the actors that do not run a trivial call within `timeout_s`.

    An actor whose method is still running (a collective that waits, a stopped process) does not answer.
    """
    if not actors:
        return []
    import ray

    pending = {actor.__ray_call__.remote(_process_id): name for name, actor in actors.items()}
    answered, _ = ray.wait(list(pending), num_returns=len(pending), timeout=timeout_s)
    return sorted(name for reference, name in pending.items() if reference not in set(answered))


def _process_id(actor: Any) -> int:
    return os.getpid()


class Watchdog:
    """A thread in the task runner that watches the current stage.

    Args:
        stage_timeout_s: longest time a stage may take, seconds.
        ping_timeout_s: how long an actor has to answer, seconds.
        actors: returns the actors to ask, by name, when a stage is overdue.
        report: gets the reason as text before the process ends.
        end: ends the process; its argument is the exit code.
    """

    def __init__(
        self,
        stage_timeout_s: float,
        ping_timeout_s: float,
        actors: Callable[[], Mapping[str, Any]],
        report: Callable[[str], None],
        end: Callable[[int], None] = os._exit,
    ) -> None:
        self.stage_timeout_s = stage_timeout_s
        self.ping_timeout_s = ping_timeout_s
        self._actors, self._report, self._end = actors, report, end
        self._stage, self._since = "start", time.monotonic()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> "Watchdog":
        """Start watching."""
        self._thread.start()
        return self

    def enter(self, stage: str) -> None:
        """Say which stage begins now."""
        self._stage, self._since = stage, time.monotonic()

    def stop(self) -> None:
        """Stop watching."""
        self._stopped.set()

    def _watch(self) -> None:
        while not self._stopped.wait(min(1.0, self.stage_timeout_s / 4)):
            overdue_s = time.monotonic() - self._since
            if overdue_s > self.stage_timeout_s:
                self._report(self._reason(self._stage, overdue_s))
                self._end(EXIT_CODE)
                return

    def _reason(self, stage: str, overdue_s: float) -> str:
        names = unanswering(self._actors(), self.ping_timeout_s)
        who = f"no answer from {', '.join(names)}" if names else "every actor answers, so the stage itself waits"
        return (
            f"stage {stage} has taken {overdue_s:.0f} s, more than guards.stage_timeout_s={self.stage_timeout_s:g}: "
            f"{who} within {self.ping_timeout_s:g} s"
        )
