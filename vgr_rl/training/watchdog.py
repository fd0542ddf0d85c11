"""Ends a run with an actor that died or stands still, or whose stage does not finish, and names the actors."""

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from vgr_rl.training.stalls import Stalls

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


class Deaths:
    """Notices actors whose process is gone.

    Each has a trivial call open, also while a method runs, and Ray fails it within seconds of the actor's death.
    Without this a rollout whose agent loop died would be waited for until the stage is overdue.
    """

    def __init__(self) -> None:
        self._open: dict[str, Any] = {}

    def look(self, actors: Mapping[str, Any]) -> dict[str, str]:
        """Return what Ray says of those that died, by name."""
        if not actors:
            return {}
        import ray

        for name in actors.keys() - self._open.keys():
            self._open[name] = actors[name].__ray_call__.remote(_process_id)
        names = {reference: name for name, reference in self._open.items()}
        ended, _ = ray.wait(list(names), num_returns=len(names), timeout=0)
        dead = {}
        for reference in ended:
            name = names[reference]
            try:
                ray.get(reference)
                del self._open[name]
            except ray.exceptions.RayActorError as error:
                dead[name] = " ".join(str(error).split())
        return dead


class Watchdog:
    """A thread in the task runner that watches the actors and the current stage.

    Args:
        stage_timeout_s: longest time a stage may take, seconds.
        ping_timeout_s: how long an actor has to answer, seconds.
        actors: returns the actors of the run that are there, by name.
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
        try:
            reason = self._why_to_end()
        except Exception as error:  # nobody would watch any longer, and a run could wait for ever
            if self._stopped.is_set():
                return
            logger.exception("the watchdog failed")
            reason = f"the watchdog failed in stage {self._stage}: {type(error).__name__}: {error}"
        if not self._stopped.is_set():
            try:
                self._report(reason)
            finally:  # also when the reason cannot be written
                self._end(EXIT_CODE)

    def _why_to_end(self) -> str:
        """Watch until there is a reason to end the run, and return it; "" when stopped."""
        deaths, stalls = Deaths(), Stalls(self.ping_timeout_s)
        while not self._stopped.wait(min(1.0, self.stage_timeout_s / 4)):
            took_s = time.monotonic() - self._since
            actors = self._actors()
            if dead := deaths.look(actors):
                return "; ".join(f"{name} died in stage {self._stage}: {why}" for name, why in dead.items())
            if silent := stalls.look(actors):
                return "; ".join(f"{name} stands still in stage {self._stage}: {why}" for name, why in silent.items())
            if took_s > self.stage_timeout_s:
                return self._reason(self._stage, took_s)
        return ""

    def _reason(self, stage: str, overdue_s: float) -> str:
        names = unanswering(self._actors(), self.ping_timeout_s)
        who = f"no answer from {', '.join(names)}" if names else "every actor answers, so the stage itself waits"
        return (
            f"stage {stage} has taken {overdue_s:.0f} s, more than guards.stage_timeout_s={self.stage_timeout_s:g}: "
            f"{who} within {self.ping_timeout_s:g} s"
        )
