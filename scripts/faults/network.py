"""Cuts the network between two nodes of a run: `python -m scripts.faults.network --out DIR --seconds 30,600`.

Each node is a Ray node in a network namespace (this needs root), with one policy worker. A run gets one cut, in the
rollouts of its second step; it has to recover, or to end within 60 s of the cut and name who cannot be reached.
"""

import argparse
import contextlib
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from scripts.faults.__main__ import verdict
from scripts.faults.runs import MOMENTS, ROOT, Run, make_data

logger = logging.getLogger(__name__)

NODES, DEVICE, PORT = ("vgr-faults-0", "vgr-faults-1"), "eth0", 6399
ADDRESSES = ("10.99.0.1", "10.99.0.2")
NOBODY = "02:00:00:00:00:01"
STEPS = 6
END_S = 240.0


def ip(*arguments: str) -> None:
    """Run iproute2."""
    subprocess.run(["ip", *arguments], check=True)


@contextlib.contextmanager
def namespaces() -> Iterator[None]:
    """Two hosts and the cable between them."""
    try:
        for name in NODES:
            ip("netns", "add", name)
        ip("link", "add", DEVICE, "netns", NODES[0], "type", "veth", "peer", "name", DEVICE, "netns", NODES[1])
        for name, address in zip(NODES, ADDRESSES, strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", DEVICE)
            for device in ("lo", DEVICE):
                ip("-n", name, "link", "set", device, "up")
        yield
    finally:
        for name in NODES:
            subprocess.run(["ip", "netns", "del", name], check=False, stderr=subprocess.DEVNULL)


def connect(yes: bool) -> None:
    """Deliver what the hosts send each other, or lose it: it goes to nobody's hardware address then."""
    for name, other in zip(NODES, reversed(ADDRESSES), strict=True):
        wrong = [] if yes else ["lladdr", NOBODY, "nud", "permanent"]
        ip("-n", name, "neighbour", "delete" if yes else "replace", other, *wrong, "dev", DEVICE)


@contextlib.contextmanager
def cluster(stages: Path) -> Iterator[dict[str, str]]:
    """A Ray node in each namespace; yields the environment of those who use it."""
    environment = {
        **{"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex * 2, "GLOO_SOCKET_IFNAME": DEVICE},
        **{"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_memory_usage_threshold": "0.99", "PYTHONPATH": str(ROOT)},
        **{"VERL_USE_EXTERNAL_MODULES": "scripts.faults.stages", "VGR_STAGES": str(stages)},
    }
    folder = tempfile.mkdtemp(prefix="vr")  # short: Ray's sockets lie below it
    processes = []
    try:
        for name, address in zip(NODES, ADDRESSES, strict=True):
            options = ["--block", f"--node-ip-address={address}", "--num-cpus=16", "--num-gpus=1"]
            first = ["--head", f"--port={PORT}", "--include-dashboard=false", f"--temp-dir={folder}"]
            options += first if address == ADDRESSES[0] else [f"--address={ADDRESSES[0]}:{PORT}"]
            command = ["ip", "netns", "exec", name, "ray", "start", *options, "--object-store-memory=200000000"]
            log = (stages.parent / f"{name}.log").open("wb")
            processes.append(subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=log))
            wait_for(log.name, "Ray runtime started")
        yield environment
    finally:
        for process in processes:
            for member in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(log: str, text: str, timeout_s: float = 180.0) -> None:
    """Wait until a log says something."""
    deadline = time.monotonic() + timeout_s
    while text not in (said := Path(log).read_text(errors="replace")):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{log} does not say {text!r}: {said[-2000:]}")
        time.sleep(0.2)


def trial(folder: Path, data: Path, seconds: float) -> dict[str, Any]:
    """Run once with a cut of this length, and return what happened."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with namespaces(), cluster(folder / "stages") as environment:
        given = [f"{name}={value}" for name, value in environment.items()]
        inside = ["ip", "netns", "exec", NODES[0], "env", f"RAY_ADDRESS={ADDRESSES[0]}:{PORT}", *given]
        run = Run(folder, data, "trainer.nnodes=2", steps=STEPS, inside=inside)
        try:
            run.reach(MOMENTS["rollout"], times=2)
            connect(False)
            cut_s = time.monotonic()
            code = run.wait(seconds)
            connect(True)
            if code is None:
                code = run.wait(END_S)
            took_s = time.monotonic() - cut_s
        finally:
            run.end()
    said = re.search(r".*(?:stands still|died in stage).*", run.log.read_text(errors="replace"))
    return {
        "fault": f"network between two nodes cut for {seconds:g} s",
        "moment": "rollout",
        "verdict": verdict(code, (), took_s, said is not None, []),
        "seconds": round(took_s, 1),
        "code": code,
        "says": said[0].strip()[:300] if said else None,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and return 0 when every run recovered or ended as it should."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs and results")
    parser.add_argument("--seconds", default="30,600", help="how long the cuts are")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    out, bad = given.out.absolute(), 0
    data, _ = make_data(out / "data")
    for seconds in map(float, given.seconds.split(",")):
        row = trial(out / f"cut_{seconds:g}", data, seconds)
        bad += row["verdict"] not in ("recovered", "ended")
        logger.info("%s", json.dumps(row))
        with (out / "network.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
    return int(bad > 0)


if __name__ == "__main__":
    raise SystemExit(main())
