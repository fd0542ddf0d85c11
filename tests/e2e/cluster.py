"""A Ray cluster of several nodes on one machine; each has an address, a raylet and an object store of its own."""

import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil


class Cluster:
    """What a user knows of a running cluster.

    Attributes:
        address: of the dashboard, for `ray job submit`.
        gcs: of Ray itself, for RAY_ADDRESS.
        environment: with the token and the `python` that jobs run.
        nodes: process of `ray start` by node, the head first.
    """

    def __init__(
        self, address: str, gcs: str, environment: dict[str, str], nodes: list[subprocess.Popen[bytes]]
    ) -> None:
        self.address, self.gcs, self.environment, self.nodes = address, gcs, environment, nodes

    def ray(self, *arguments: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command of Ray's."""
        return subprocess.run(
            ["ray", *arguments], capture_output=True, text=True, timeout=timeout_s, env=self.environment
        )


@contextlib.contextmanager
def running(
    gpus: list[int], env: dict[str, str] | None = None, names: Mapping[int, str] | None = None
) -> Iterator[Cluster]:
    """Start a node for each number of GPU slots, the head first, on 127.0.0.1, 127.0.0.2, …, and end them all.

    Args:
        gpus: slots of each node.
        env: of all.
        names: a resource of its own that a node offers, by the node's number from 0.
    """
    environment = {
        **{name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
        **{"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex * 2, "WANDB_MODE": "offline"},
        **{"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_memory_usage_threshold": "0.99"},
        "RAY_agent_register_timeout_ms": "180000",  # a busy machine imports slowly
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # jobs run the head's `python`
        **(env or {}),
    }
    port, dashboard = free_port(), free_port()
    folders = [Path(tempfile.mkdtemp(prefix="vr")) for _ in gpus]  # short: Ray's sockets lie below them
    head = ["--head", f"--port={port}", "--include-dashboard=true", "--dashboard-host=127.0.0.1"]
    head += [f"--dashboard-port={dashboard}", f"--temp-dir={folders[0]}"]
    cluster = Cluster(f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{port}", environment, [])
    try:
        for number, slots in enumerate(gpus):
            options = [f"--node-ip-address=127.0.0.{number + 1}", "--num-cpus=16", f"--num-gpus={slots}"]
            if names and number in names:
                options.append(f"--resources={json.dumps({names[number]: 1})}")
            options += [f"--address=127.0.0.1:{port}"] if number else head
            _start(cluster, options, folders[number] / "ray_start.log")
        yield cluster
    finally:
        for process in cluster.nodes:
            end(process.pid)
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def _start(cluster: Cluster, options: list[str], log: Path) -> None:
    """Start a node and wait until it is there; `ray start` gives up after 30 s, which a busy machine may take."""
    nodes = cluster.nodes

    def attempt() -> subprocess.Popen[bytes]:
        ports = ("dashboard-agent-listen-port", "runtime-env-agent-port", "metrics-export-port")
        own = [f"--{name}={free_port()}" for name in ports]  # by default the same on every node
        command = ["ray", "start", "--block", *options, *own, "--object-store-memory=200000000"]
        with log.open("ab") as output:
            return subprocess.Popen(
                command, stdout=output, stderr=output, start_new_session=True, env=cluster.environment
            )

    def there() -> bool:
        if nodes[-1].poll() is not None:
            nodes[-1] = attempt()
        return _alive(cluster) == len(nodes)

    nodes.append(attempt())
    try:
        wait_for(there, f"Ray node {len(nodes)}", 180)
    except AssertionError as error:
        raise AssertionError(f"{error}:\n{log.read_text()[-4000:]}") from error


def end(pid: int) -> None:
    """Kill a process with all that it started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        family = [parent, *parent.children(recursive=True)]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=20)


def free_port() -> int:
    """Return a port that nobody listens on, and that the kernel gives nobody who asks for any, nor Ray its workers."""
    first_given = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(20000, first_given)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("0.0.0.0", port))
            return port


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"no {what} within {timeout_s} s"
        time.sleep(0.2)


def _alive(cluster: Cluster) -> int:
    key = {"Authorization": f"Bearer {cluster.environment['RAY_AUTH_TOKEN']}"}
    request = urllib.request.Request(f"{cluster.address}/nodes?view=summary", headers=key)
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            nodes = json.load(reply)["data"]["summary"]
    except OSError:  # the dashboard listens before it answers
        return 0
    return [node["raylet"].get("state") for node in nodes].count("ALIVE")
