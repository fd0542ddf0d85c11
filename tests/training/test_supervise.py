"""What restarts a run: children that are real processes, with real exit statuses and signals."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from tests.e2e.runs import lines
from vgr_rl.training.supervise import IDLE_ATTEMPTS


def child(run_dir: Path, body: str) -> list[str]:
    """A command that counts its attempts in `attempts`; `step(n)` writes checkpoint n, `attempt` is its number."""
    head = f"""
        import json, os, signal, subprocess, sys, time
        from pathlib import Path
        run_dir = Path({str(run_dir)!r})
        with open(run_dir / "attempts", "a") as file:
            file.write("x")
        attempt = (run_dir / "attempts").stat().st_size
        def step(number):
            folder = run_dir / "checkpoints" / f"global_step_{{number}}"
            folder.mkdir(parents=True)
            (folder / "manifest.json").write_text("{{}}")
    """
    return [sys.executable, "-S", "-c", textwrap.dedent(head) + textwrap.dedent(body)]


def parent(run_dir: Path, body: str, restarts: int, backoff_s: float) -> subprocess.Popen[bytes]:
    """Start a supervisor in a process of its own: it ends everything that its process has started."""
    program = (
        "import sys; from pathlib import Path; from vgr_rl.training.supervise import Supervisor\n"
        f"run_dir = Path({str(run_dir)!r})\n"
        f"sys.exit(Supervisor(run_dir, run_dir / 'checkpoints', {restarts}, {backoff_s}).run(sys.argv[1:]))"
    )
    return subprocess.Popen([sys.executable, "-c", program, *child(run_dir, body)])


def supervise(run_dir: Path, body: str, restarts: int = 3, backoff_s: float = 0.0) -> tuple[int, int, list[str]]:
    """Return exit status, attempts and what was said."""
    status = parent(run_dir, body, restarts, backoff_s).wait(timeout=60)
    events = run_dir / "events.jsonl"
    said = [line["message"] for line in lines(events)] if events.exists() else []
    return status, (run_dir / "attempts").stat().st_size, said


def test_a_killed_run_is_started_again_until_it_finishes(tmp_path: Path) -> None:
    status, attempts, said = supervise(
        tmp_path, "step(attempt)\nif attempt < 3:\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert (status, attempts) == (0, 3)
    assert said == [
        f"attempt {n} was ended by SIGKILL, without a word in events.jsonl; "
        f"restart {n} of 3 from global_step_{n} in 0 s"
        for n in (1, 2)
    ]


def test_the_restarts_are_counted_and_the_reason_is_the_first_error_of_the_attempt(tmp_path: Path) -> None:
    body = """
        step(attempt)
        with open(run_dir / "events.jsonl", "a") as file:
            for text in ("policy worker 0 died", "the run failed"):
                file.write(json.dumps({"level": "error", "message": f"{text} in {attempt}"}) + "\\n")
        sys.exit(70)
    """
    status, attempts, said = supervise(tmp_path, body, restarts=2)
    assert (status, attempts) == (70, 3)
    supervised = [text for text in said if text.startswith("attempt")]
    assert supervised[1].startswith("attempt 2 ended with status 70, policy worker 0 died in 2; restart 2 of 2")
    assert supervised[2].endswith("not started again: supervise.restarts=2")


def test_attempts_that_add_no_checkpoint_are_no_endless_loop(tmp_path: Path) -> None:
    status, attempts, said = supervise(tmp_path, "step(7) if attempt == 1 else None\nsys.exit(1)", restarts=100)
    assert (status, attempts) == (1, 1 + IDLE_ATTEMPTS)
    assert "2 attempts in a row added no checkpoint" in said[-1]


@pytest.mark.parametrize("status", [0, 2, 75, 130, 143])
def test_what_finished_cannot_start_or_was_asked_to_end_is_not_started_again(tmp_path: Path, status: int) -> None:
    assert supervise(tmp_path, f"sys.exit({status})") == (status, 1, [])


def test_nothing_of_an_attempt_outlives_it(tmp_path: Path) -> None:
    body = """
        sleeper = subprocess.Popen(["sleep", "600"], start_new_session=True)
        (run_dir / "sleeper").write_text(str(sleeper.pid))
        os.kill(os.getpid(), signal.SIGKILL)
    """
    supervise(tmp_path, body, restarts=0)
    sleeper = int((tmp_path / "sleeper").read_text())
    assert not psutil.pid_exists(sleeper) or psutil.Process(sleeper).status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("paused", [False, True])
def test_a_signal_reaches_the_run_once_and_ends_the_restarts(tmp_path: Path, paused: bool) -> None:
    body = "sys.exit(9)" if paused else """
        def handle(*_):
            with open(run_dir / "signals", "a") as file:
                file.write("x")
            sys.exit(1)
        signal.signal(signal.SIGTERM, handle)
        (run_dir / "ready").touch()
        time.sleep(60)
    """  # fmt: skip
    process = parent(tmp_path, body, 5, 60)
    deadline = time.monotonic() + 60
    while not (tmp_path / ("events.jsonl" if paused else "ready")).exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(timeout=30) == (9 if paused else 1)
    assert (tmp_path / "attempts").read_text() == "x"
    assert paused or (tmp_path / "signals").read_text() == "x"
