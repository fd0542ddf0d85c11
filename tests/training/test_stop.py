"""Asking a run to end, by a file and by signals."""

import os
import signal
from pathlib import Path

import pytest

from vgr_rl.training import stop


def test_a_file_asks_for_the_end(tmp_path: Path) -> None:
    assert stop.requested(tmp_path) is None
    (tmp_path / "stop").touch()
    assert stop.requested(tmp_path) == f"the file {tmp_path}/stop"
    stop.request(tmp_path, "SIGTERM")
    assert stop.requested(tmp_path) == "SIGTERM"
    stop.forget(tmp_path)
    stop.forget(tmp_path)
    assert stop.requested(tmp_path) is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks_and_the_second_ends(number: signal.Signals, tmp_path: Path) -> None:
    before = signal.getsignal(number)
    with stop.on_signals(tmp_path) as received:
        assert received.signal is None and received.exit_code == 75
        os.kill(os.getpid(), number)
        assert stop.requested(tmp_path) == number.name and received.exit_code == 128 + number
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) == before
