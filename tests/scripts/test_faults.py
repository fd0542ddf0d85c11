"""The fault campaign's own parts; that it finds hung and nameless runs, and that its faults happen."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import save_file

from scripts.faults import network
from scripts.faults.__main__ import table, verdict
from scripts.faults.injections import FAULTS, fill_disk, find, make_read_only
from scripts.faults.kills import compare, next_driver
from scripts.faults.runs import NotReached


@pytest.mark.parametrize(
    ("code", "codes", "seconds", "named", "left", "expected"),
    [
        (None, (), 150, False, [], "HUNG"),
        (0, (), 3, True, [], "recovered"),
        (1, (), 3, True, [], "ended"),
        (1, (), 3, False, [], "NAMED NOBODY"),
        (1, (), 61, True, [], "TOO LATE"),
        (1, (), 3, True, ["ray::Runner"], "LEFT PROCESSES"),
        (143, (143,), 3, True, [], "ended"),
        (1, (143,), 3, True, [], "WRONG STATUS"),
        (0, (143,), 3, True, [], "WRONG STATUS"),
    ],
)
def test_only_a_run_that_ends_in_time_with_a_name_and_a_status_has_ended(
    code: int | None, codes: tuple[int, ...], seconds: float, named: bool, left: list[str], expected: str
) -> None:
    assert verdict(code, codes, seconds, named, left) == expected


def test_the_table_has_the_last_result_of_each_fault_and_moment() -> None:
    row = {"fault": "driver killed", "moment": "save", "verdict": "HUNG", "seconds": 150.2, "code": None}
    rows = [row, {**row, "verdict": "ended", "seconds": 4.6, "code": -9}]
    assert table(rows).splitlines()[2:] == ["| driver killed | save | ended | 5 s | -9 |"]


@contextlib.contextmanager
def isolated(run_dir: Path) -> Iterator[psutil.Process]:
    """A process whose run directory is a small file system of its own, as that of a run."""
    run_dir.mkdir()
    sleeper = f"import time; open({str(run_dir / 'ready')!r}, 'w').close(); time.sleep(60)"
    mounted = f'mount -t tmpfs -o size=1m none "{run_dir}" && exec "$@"'
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", mounted, "sh", sys.executable, "-c", sleeper]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        while not Path(f"/proc/{process.pid}/root{run_dir}/ready").exists():
            if process.poll() is not None:
                pytest.skip("this machine gives no namespaces")
            time.sleep(0.01)
        yield psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("fault", "message"), [(fill_disk, "No space left"), (make_read_only, "Read-only file system")]
)
def test_the_disk_is_really_full_or_read_only(fault, message: str, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with isolated(run_dir) as process:
        seen = Path(f"/proc/{process.pid}/root{run_dir}/metrics.jsonl")
        seen.write_text("line\n")
        fault(process, run_dir)
        with pytest.raises(OSError, match=message):
            seen.write_text("x" * 10_000)
    assert list(run_dir.iterdir()) == []


def test_a_process_is_found_by_its_name_and_a_missing_one_is_an_error() -> None:
    parent = subprocess.Popen(["sh", "-c", "sleep 60 & wait"])
    try:
        while not (family := psutil.Process(parent.pid).children()):
            time.sleep(0.01)
        while "sleep" not in family[0].cmdline():
            time.sleep(0.01)
        assert find(psutil.Process(parent.pid), "sleep") == family[0]
        with pytest.raises(LookupError, match="no process ray::Runner"):
            find(psutil.Process(parent.pid), "ray::Runner")
        FAULTS["driver killed"].inject(psutil.Process(parent.pid), Path())
        assert parent.wait(timeout=10) == -9
    finally:
        family[0].kill()
        parent.kill()


def ended_run(run_dir: Path, order: tuple[int, ...], responses: tuple[str, ...], weight: float) -> Path:
    (run_dir / "model").mkdir(parents=True)
    rows = [{"step": 1, "id": f"row-{i}", "rollout": 0, "response": responses[i]} for i in order]
    (run_dir / "samples.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    save_file({"a": torch.tensor([0.5, weight])}, run_dir / "model" / "model.safetensors")
    return run_dir


@pytest.mark.parametrize(
    ("order", "responses", "weight", "batches", "others", "difference"),
    [
        ((0, 1), ("x", "y"), 1.0, True, 0, 0.0),
        ((1, 0), ("x", "y"), 1.0, False, 2, 0.0),
        ((0,), ("x", "y"), 1.0, False, 1, 0.0),
        ((0, 1), ("x", "z"), 1.25, True, 1, 0.25),
    ],
)
def test_runs_that_saw_or_said_or_learnt_something_else_differ(
    order: tuple[int, ...], responses: tuple[str, ...], weight: float, batches: bool, others: int, difference: float,
    tmp_path: Path,
) -> None:  # fmt: skip
    whole = ended_run(tmp_path / "whole", (0, 1), ("x", "y"), 1.0)
    found = compare(whole, ended_run(tmp_path / "killed", order, responses, weight))
    assert (found["same_batches"], found["other_responses"]) == (batches, others)
    assert (found["largest_weight_difference"], found["same_weights"]) == (difference, difference == 0.0)


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="namespaces need root and iproute2")
def test_a_cut_network_is_silent_and_comes_back() -> None:
    listen = f"import socket, time; server = socket.create_server(('{network.ADDRESSES[1]}', 7)); time.sleep(60)"
    knock = f"import socket; socket.create_connection(('{network.ADDRESSES[1]}', 7), timeout=1)"
    try:
        with network.namespaces():
            inside = [["ip", "netns", "exec", name, sys.executable, "-c"] for name in network.NODES]
            server = subprocess.Popen([*inside[1], listen])
            try:
                until(lambda: subprocess.run([*inside[0], knock], stderr=subprocess.DEVNULL).returncode == 0)
                network.connect(False)
                silent = subprocess.run([*inside[0], knock], capture_output=True, text=True)
                assert "TimeoutError" in silent.stderr
                assert subprocess.run([*inside[1], knock]).returncode == 0, "a host still reaches itself"
                network.connect(True)
                until(lambda: subprocess.run([*inside[0], knock], stderr=subprocess.DEVNULL).returncode == 0)
            finally:
                server.kill()
                server.wait()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this machine gives no namespaces: {error}")


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_who_waits_for_the_next_attempt_of_a_supervisor_that_ended_is_told() -> None:
    ended = subprocess.Popen([sys.executable, "-c", "pass"])
    supervisor = psutil.Process(ended.pid)
    with pytest.raises(NotReached, match="supervisor has ended"):
        next_driver(supervisor)
    ended.wait()
