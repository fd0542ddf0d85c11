"""Ends a run between two steps, with a checkpoint: by a signal, or by a file `stop` in the run directory."""

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

logger = logging.getLogger(__name__)

EXIT_CODE = 75  # of a run that the file stopped (EX_TEMPFAIL: the same command goes on); by a signal 128 + its number
_FILE = "stop"
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(Exception):
    """A run ended because it was asked to; everything up to here is in a checkpoint."""


class Received:
    """Whether a signal has asked for the end.

    Attributes:
        signal: the first one, None without.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    @property
    def exit_code(self) -> int:
        """Exit status of the command."""
        return EXIT_CODE if self.signal is None else 128 + self.signal


def requested(run_dir: str | Path) -> str | None:
    """Return who asks for the end, None when nobody does."""
    path = Path(run_dir) / _FILE
    return (path.read_text().strip() or f"the file {path}") if path.exists() else None


def request(run_dir: str | Path, reason: str) -> None:
    """Ask for the end."""
    (Path(run_dir) / _FILE).write_text(reason)


def forget(run_dir: str | Path) -> None:
    """Take an earlier request back."""
    (Path(run_dir) / _FILE).unlink(missing_ok=True)


@contextmanager
def on_signals(run_dir: str | Path) -> Iterator[Received]:
    """Make the first SIGTERM or SIGINT ask for the end, and the second one end at once (KeyboardInterrupt)."""
    received = Received()

    def handle(number: int, frame: FrameType | None) -> None:
        if received.signal is not None:
            raise KeyboardInterrupt
        received.signal = signal.Signals(number)
        request(run_dir, received.signal.name)
        logger.info("%s: the run ends after this step, with a checkpoint; again: at once", received.signal.name)

    former = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield received
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
