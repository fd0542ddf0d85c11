"""The faults: what is done to which process of a run, and what the run has to say then."""

import contextlib
import re
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

FILLER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Fault:
    """One way for a run to go wrong.

    Attributes:
        inject: takes the driver and the run directory.
        says: what the terminal must show then (regular expression); None when nobody is left to say it.
        codes: exit statuses that are expected; empty for any but 0.
        setup: the run that it needs, of `runs.SETUPS`.
    """

    inject: Callable[[psutil.Process, Path], None]
    says: str | None
    codes: tuple[int, ...] = ()
    setup: str = "rules"


def send(number: signal.Signals, name: str) -> Callable[[psutil.Process, Path], None]:
    """Return an injection that sends a signal to the first process of the run with this in its command line."""

    def inject(driver: psutil.Process, run_dir: Path) -> None:
        find(driver, name).send_signal(number)

    return inject


def find(driver: psutil.Process, name: str) -> psutil.Process:
    """Return a process of a run; Ray calls its actors `ray::CLASS`."""
    for process in driver.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if re.search(name, " ".join(process.cmdline()[:1])):
                return process
    raise LookupError(f"no process {name} below {driver.pid}")


def _tell(number: signal.Signals) -> Callable[[psutil.Process, Path], None]:
    return lambda driver, run_dir: driver.send_signal(number)


def fill_disk(driver: psutil.Process, run_dir: Path) -> None:
    """Leave no room on the run directory's file system, which only the run sees (see `runs.Run`)."""
    filler = Path(f"/proc/{driver.pid}/root{run_dir}/filler")
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(FILLER_BYTES)):
            pass
    with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
        while file.write(bytes(64)):
            pass


def make_read_only(driver: psutil.Process, run_dir: Path) -> None:
    """Mount the run directory read-only, as a failing disk is."""
    command = ["nsenter", f"--target={driver.pid}", "--user", "--mount", "--preserve-credentials"]
    subprocess.run([*command, "mount", "-o", "remount,ro", str(run_dir)], check=True)


KILL, STOP = signal.SIGKILL, signal.SIGSTOP
FAULTS = {
    "policy worker killed": Fault(send(KILL, "WorkerDict"), "policy worker 0|WorkerDict"),
    "vLLM engine killed": Fault(send(KILL, "InprocServer"), "vLLM server 0.0|InprocServer"),
    "agent-loop worker killed": Fault(send(KILL, "AgentLoopWorker"), "agent-loop worker 0|AgentLoopWorker"),
    "reward worker killed": Fault(send(KILL, "Reward.*Worker"), "reward worker 0|Reward\\w*Worker"),
    "TransferQueue storage killed": Fault(send(KILL, "SimpleStorageUnit"), "TransferQueue storage 0"),
    "judge server killed": Fault(send(KILL, "vLLMHttpServer"), "judge server 0 is down", setup="judge"),
    "SAM2 server killed": Fault(send(KILL, "ray::MaskServer"), "MaskServer", setup="masks"),
    "task runner killed": Fault(send(KILL, "ray::Runner"), "Runner"),
    "raylet killed": Fault(send(KILL, "raylet$"), "(?i)raylet|node"),
    "driver killed": Fault(_tell(KILL), None),
    "policy worker stalled": Fault(send(STOP, "WorkerDict"), "policy worker 0 stands still"),
    "vLLM engine stalled": Fault(send(STOP, "InprocServer"), "vLLM server 0.0 stands still"),
    "task runner stalled": Fault(send(STOP, "ray::Runner"), "task runner stands still"),
    "SIGTERM": Fault(_tell(signal.SIGTERM), "stopped by SIGTERM", (143,)),
    "SIGINT": Fault(_tell(signal.SIGINT), "stopped by SIGINT", (130,)),
    "disk full": Fault(fill_disk, "No space left on device"),
    "run directory read-only": Fault(make_read_only, "Read-only file system"),
}
