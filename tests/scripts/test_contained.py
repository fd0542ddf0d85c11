import os
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from pathlib import Path

import pytest

from scripts import contained

CONTAINED = Path(__file__).parents[2] / "scripts" / "contained.py"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs Linux")]


def start(*command: str, log: Path | None = None) -> subprocess.Popen[str]:
    options = ["--log", str(log)] if log else []
    arguments = [sys.executable, str(CONTAINED), *options, "--", *command]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def alive(process: int) -> bool:
    try:
        return (Path("/proc") / str(process) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(path: Path) -> str:
    for _ in range(200):
        if path.exists() and path.read_text():
            return path.read_text()
        time.sleep(0.05)
    raise TimeoutError(path)


@pytest.fixture
def littering(tmp_path: Path) -> tuple[list[str], Path, Path]:
    """A command that leaves a daemon deaf to TERM and a shared-memory segment; its pid file; the segment."""
    segment, pids = Path("/dev/shm") / f"vgr-test-{uuid.uuid4().hex}", tmp_path / "pids"
    code = f"""
        import pathlib, subprocess, sys, time
        pathlib.Path({str(segment)!r}).write_bytes(b"x")
        daemon = subprocess.Popen(["setsid", "bash", "-c", "trap '' TERM; while :; do sleep 0.2; done"])
        pathlib.Path({str(pids)!r}).write_text(str(daemon.pid))
        time.sleep(float(sys.argv[1]))
        raise SystemExit(7)
    """
    return [sys.executable, "-c", textwrap.dedent(code)], pids, segment


def test_the_status_is_the_commands(tmp_path: Path):
    log = tmp_path / "log"
    process = start("bash", "-c", "echo out; echo err >&2; exit 4", log=log)
    process.communicate(timeout=30)
    assert process.returncode == 4
    assert log.read_text().split() == ["out", "err"]


def test_daemons_and_segments_of_a_finished_command_are_removed(littering):
    command, pids, segment = littering
    process = start(*command, "0")
    process.communicate(timeout=60)
    assert process.returncode == 7
    assert not alive(int(pids.read_text()))
    assert not segment.exists()


def test_a_signal_ends_the_command_and_all_it_started(littering):
    command, pids, segment = littering
    process = start(*command, "600")
    daemon = int(wait_for(pids))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert not alive(daemon)
    assert not segment.exists()


def test_segments_that_another_process_holds_stay(tmp_path: Path):
    segment = Path("/dev/shm") / f"vgr-test-{uuid.uuid4().hex}"
    try:
        process = start("sleep", "2")
        time.sleep(1.0)
        with segment.open("wb") as held:
            held.write(b"x")
            held.flush()
            process.communicate(timeout=30)
            assert segment.exists()
    finally:
        segment.unlink()


def test_the_death_of_the_parent_ends_the_command(littering):
    command, pids, segment = littering
    parent = subprocess.Popen(
        [sys.executable, "-c", "import subprocess, sys; subprocess.run(sys.argv[1:])"]
        + [sys.executable, str(CONTAINED), *command, "600"]
    )
    daemon = int(wait_for(pids))
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait(timeout=10)
    for _ in range(200):
        if not alive(daemon) and not segment.exists():
            return
        time.sleep(0.1)
    raise AssertionError("the daemon or its segment outlived the parent")


def test_progress_is_cut_to_fit_a_terminal_and_nowhere_else(tmp_path, capsys):
    log = tmp_path / "log"
    log.write_text("step 1  " + "reward 0.123 " * 30)
    contained._report(61, log, terminal=False)
    assert capsys.readouterr().err == f"  1:01  {log.read_text().strip()}\n"
    contained._report(61, log, terminal=True)
    assert len(capsys.readouterr().err) < 200


def test_orphans_that_end_before_the_command_are_gone_while_it_runs():
    code = """
        import pathlib, subprocess, time
        said = subprocess.run(["sh", "-c", "sleep 0.2 & echo $!"], stdout=subprocess.PIPE, text=True).stdout
        deadline = time.monotonic() + 10
        while pathlib.Path("/proc", said.strip()).exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        raise SystemExit(time.monotonic() >= deadline)
    """
    process = start(sys.executable, "-c", textwrap.dedent(code))
    process.communicate(timeout=60)
    assert process.returncode == 0
