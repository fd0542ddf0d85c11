"""Runs the tasks of a plan, several at once; what is finished is not run again.

A finished task leaves `done/NAME.json` in the output folder: its command, its seconds and a hash of the code that ran.
A task whose command changed is run anew in an empty folder; one that was interrupted gets its folder back, and goes on
from its checkpoint.
"""

import fcntl
import hashlib
import json
import logging
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from scripts.ablations.plan import Task
from scripts.contained import last_line
from vgr_rl.benchmarks.store import write_json

CHECKOUT = Path(__file__).resolve().parents[2]
_CODE = ("vgr_rl", "rewards", "recipes", "requirements/cpu.lock")
_POLL_S = 0.5
log = logging.getLogger(__name__)


class Stopped(Exception):
    """The user asked to stop."""


@dataclass(slots=True)
class Running:
    """A task that runs."""

    task: Task
    log: Path
    process: subprocess.Popen[bytes]
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """How long it has run."""
        return time.monotonic() - self.started


@dataclass(frozen=True, slots=True)
class Done:
    """What is known of a finished task: its command, how long it took, a hash of the code that ran."""

    command: tuple[str, ...]
    seconds: float
    code: str


def exit_status(command: Callable[[], Sequence[str]]) -> int:
    """Run what returns tasks that did not finish; return 1 for those, 2 for a wrong option, 130 when stopped, or 0."""
    try:
        if missing := command():
            log.error("not finished: %s", ", ".join(missing))
            return 1
    except ValueError as error:
        log.error("error: %s", error)
        return 2
    except Stopped:
        log.error("stopped; the same command goes on from here")
        return 130
    return 0


class Schedule:
    """The tasks of one output folder.

    Args:
        tasks: each after those it needs.
        root: the output folder, relative to the checkout or absolute.
        console: where progress is shown.
    """

    def __init__(self, tasks: Sequence[Task], root: Path, console: Console) -> None:
        self._tasks, self._root, self._console = tasks, root, console
        self._code = code_hash()
        self._waiting: list[Task] = []
        self._running: list[Running] = []
        self._failed: list[str] = []

    def run(self, jobs: int) -> list[str]:
        """Run what is not done yet, `jobs` commands at once; return the names of the tasks that did not finish.

        Raises:
            ValueError: when another process runs tasks of the same folder.
            Stopped: after INT, TERM or HUP, when everything that ran has ended.
        """
        with _locked(self._root / "lock"):
            return self._run(jobs)

    def _run(self, jobs: int) -> list[str]:
        self._waiting = [task for task in self._tasks if not self._is_done(task)]
        self._say_what_is_done()
        with (
            _stopping(),
            Live(console=self._console, get_renderable=self._table, refresh_per_second=1, transient=True) as live,
        ):
            live.auto_refresh = self._console.is_terminal
            try:
                while self._waiting or self._running:
                    self._start_some(jobs)
                    if not self._running:
                        break
                    time.sleep(_POLL_S)
                    self._collect()
            finally:
                self._stop_all()
        return [*self._failed, *(task.name for task in self._waiting)]

    def unfinished(self) -> list[str]:
        """Return the names of the tasks that are not done."""
        return [task.name for task in self._tasks if not self._is_done(task)]

    def _is_done(self, task: Task) -> bool:
        done = read_done(self._root, task)
        return done is not None and done.command == task.command and task.out.is_dir()

    def _say_what_is_done(self) -> None:
        finished = [done for task in self._tasks if self._is_done(task) and (done := read_done(self._root, task))]
        self._console.print(f"{len(self._tasks)} tasks, {len(finished)} of them done already")
        if others := sum(done.code != self._code for done in finished):
            self._console.print(
                f"{others} of those ran other code than this; remove {self._root}/done to run them again"
            )

    def _start_some(self, jobs: int) -> None:
        unfinished = {task.name for task in self._waiting} | {running.task.name for running in self._running}
        unfinished.update(self._failed)
        ready = [task for task in self._waiting if not unfinished.intersection(task.needs)]
        for task in ready[: jobs - len(self._running)]:
            self._waiting.remove(task)
            self._start(task)

    def _start(self, task: Task) -> None:
        started = _stamp(self._root, "started", task)
        if _read(started) != list(task.command):
            shutil.rmtree(task.out, ignore_errors=True)
        write_json(started, list(task.command))
        output = self._root / "logs" / f"{task.name.replace('/', '_')}.log"
        output.parent.mkdir(parents=True, exist_ok=True)
        contained = [sys.executable, str(CHECKOUT / "scripts" / "contained.py"), "--log", str(output), "--"]
        process = subprocess.Popen(
            [*contained, sys.executable, "-m", *task.command],
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C reaches us, and we stop it
        )
        self._running.append(Running(task, output, process))
        self._console.print(f"{task.name}: started (log: {output})")

    def _collect(self) -> None:
        for running in list(self._running):
            status = running.process.poll()
            if status is None:
                continue
            self._running.remove(running)
            name, seconds = running.task.name, running.seconds
            if status == 0:
                done = {"command": list(running.task.command), "seconds": round(seconds, 1), "code": self._code}
                write_json(_stamp(self._root, "done", running.task), done)
                self._console.print(f"{name}: done in {_duration(seconds)}")
            else:
                self._failed.append(name)
                self._console.print(
                    f"{name}: failed with status {status} after {_duration(seconds)}; see {running.log}"
                )

    def _stop_all(self) -> None:
        for running in self._running:
            running.process.send_signal(signal.SIGTERM)
        for running in self._running:
            running.process.wait()

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for running in self._running:
            table.add_row(
                running.task.name, _duration(running.seconds), last_line(running.log) if running.log.exists() else ""
            )
        table.add_row(f"{len(self._waiting)} waiting", "", "")
        return table


def read_done(root: Path, task: Task) -> Done | None:
    """Return what is known of a finished task, None when it is not finished."""
    content = _read(_stamp(root, "done", task))
    return content and Done(tuple(content["command"]), content["seconds"], content["code"])


def code_hash() -> str:
    """Return a hash of the code that decides what a run does."""
    digest = hashlib.sha256()
    for path in sorted(_code_files()):
        digest.update(f"{path.relative_to(CHECKOUT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _code_files() -> Iterable[Path]:
    for name in _CODE:
        path = CHECKOUT / name
        yield from [path] if path.is_file() else (p for p in path.rglob("*") if p.suffix in (".py", ".yaml"))


def _stamp(root: Path, kind: str, task: Task) -> Path:
    return root / kind / f"{task.name.replace('/', '_')}.json"


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _duration(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"--out={path.parent} is in use: another run of the ablations writes to it") from error
        yield


@contextmanager
def _stopping() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, stop) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
