"""Runs one command so that nothing of it stays behind: `contained.py [--log FILE] [--] COMMAND...`.

The command runs in a session of its own. When it ends, or when this process is told to stop (INT, TERM, or the death
of its parent), every process that descends from it is ended, also those that left its session or lost their parent,
and the shared-memory segments that appeared meanwhile and that no process holds are removed. The exit status is the
command's.

With `--log` the command's output goes to that file and the last line of it is shown while the command runs.
"""

import argparse
import contextlib
import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

SHARED_MEMORY = Path("/dev/shm")
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
STOP_GRACE_S = 20.0  # for the command to shut Ray down by itself
END_GRACE_S = 1.5  # for what is left, between TERM and KILL
PLAIN_REPORT_S = 60.0  # how often progress is reported where there is no terminal
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x1f]")


class Stopped(Exception):
    """This process was told to stop, by the signal of that number."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


def run(command: list[str], log: Path | None = None) -> int:
    """Runs the command to its end, then ends and removes what it left.

    Returns:
        The command's exit status; 128 + the signal's number when it, or this process, was ended by a signal.
    """
    _prctl(PR_SET_CHILD_SUBREAPER, 1)  # orphans of the command become our children
    _stop_on_signals()
    segments_before = _segments()
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(log.open("wb")) if log else None
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output and subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            status = _watch(process, log)
        except Stopped as stop:
            status = -stop.number
            _stop(process)
        finally:
            _ignore_signals()
            _end_descendants()
            _remove_segments(segments_before)
    return status if status >= 0 else 128 - status


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value})")


def _stop_on_signals() -> None:
    def stop(number: int, frame: FrameType | None) -> None:
        _ignore_signals()
        raise Stopped(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    parent = os.getppid()
    _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before the line above
        raise Stopped(signal.SIGTERM)


def _ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _watch(process: subprocess.Popen[bytes], log: Path | None) -> int:
    start, reported = time.monotonic(), time.monotonic()
    terminal = sys.stderr.isatty()
    while True:
        try:
            status = process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            _reap_adopted(process.pid)
            if log and (terminal or time.monotonic() - reported >= PLAIN_REPORT_S):
                reported = time.monotonic()
                _report(reported - start, log, terminal)
            continue
        if log and terminal:
            sys.stderr.write("\r\x1b[K")
        return status


def _report(elapsed_s: float, log: Path, terminal: bool) -> None:
    minutes, seconds = divmod(int(elapsed_s), 60)
    line = f"  {minutes:d}:{seconds:02d}  {last_line(log)}"
    sys.stderr.write(f"\r{line[: shutil.get_terminal_size().columns - 1]}\x1b[K" if terminal else f"{line}\n")
    sys.stderr.flush()


def last_line(log: Path) -> str:
    """Returns the last line of a log that is not empty."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        text = file.read().decode(errors="replace")
    lines = [_ESCAPES.sub("", line).strip() for line in re.split(r"[\r\n]+", text)]
    return next((line for line in reversed(lines) if line), "")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=STOP_GRACE_S)


def _processes() -> Iterator[tuple[int, int, bool]]:
    """Yields (process, its parent, whether it only waits to be reaped) for every process."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                state, parent = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
                yield int(entry.name), int(parent), state == "Z"


def _descendants() -> list[int]:
    children: dict[int, list[int]] = {}
    for process, parent, dead in _processes():
        if not dead:
            children.setdefault(parent, []).append(process)
    found, queue = [], [os.getpid()]
    while queue:
        direct = children.get(queue.pop(), [])
        found += direct
        queue += direct
    return found


def _end_descendants() -> None:
    for number, grace_s in ((signal.SIGTERM, END_GRACE_S), (signal.SIGKILL, END_GRACE_S)):
        deadline = time.monotonic() + grace_s
        while (processes := _descendants()) and time.monotonic() < deadline:
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, number)
            time.sleep(0.1)
            _reap()


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _reap_adopted(command: int) -> None:
    """Reaps dead orphans, not the command: who looks whether such a process is there would find it."""
    for process, parent, dead in _processes():
        if dead and parent == os.getpid() and process != command:
            os.waitpid(process, os.WNOHANG)


def _segments() -> set[str]:
    if not SHARED_MEMORY.is_dir():
        return set()
    return {entry.name for entry in SHARED_MEMORY.iterdir() if entry.is_file() and entry.stat().st_uid == os.getuid()}


def _held_segments() -> set[str]:
    """Names of the segments that a live process maps or has open."""
    held = set()
    prefix = f"{SHARED_MEMORY}/"
    for process in (entry for entry in Path("/proc").iterdir() if entry.name.isdecimal()):
        with contextlib.suppress(OSError):
            held |= set(re.findall(rf"{prefix}(\S+)", (process / "maps").read_text(errors="replace")))
        with contextlib.suppress(OSError):
            held |= {
                target.removeprefix(prefix)
                for descriptor in (process / "fd").iterdir()
                if (target := _link(descriptor)).startswith(prefix)
            }
    return held


def _link(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _remove_segments(before: set[str]) -> None:
    new = _segments() - before
    if new:
        for name in new - _held_segments():
            (SHARED_MEMORY / name).unlink(missing_ok=True)


def main() -> None:
    """Reads the command line and exits with the command's status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", type=Path, help="file for the command's output")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        parser.error("a command is expected")
    raise SystemExit(run(command, arguments.log))


if __name__ == "__main__":
    main()
