"""The logic of scripts/install.sh around pip: a stub stands for Python, pip and uv."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
SCRIPTS = Path(__file__).parents[2] / "scripts"
STUB = """#!/usr/bin/env bash
# Answers what install.sh asks of Python, notes pip's calls in $STUB_CALLS.
case "$*" in
    *version_info*) echo "${STUB_VERSION:-3.11}" ;;
    "-m venv --clear "*) rm -rf "$4"; mkdir -p "$4/bin"; touch "$4/pyvenv.cfg"; cp "$0" "$4/bin/python" ;;
    "-m pip config list") echo "global.find-links='/links'" ;;
    "-m uv --version") exit 1 ;;
    "-m pip install --quiet uv") exit 1 ;;
    "-m pip install"*)
        echo "$*" >>"$STUB_CALLS"
        sleep "${STUB_SLEEP:-0}"
        if [ -n "${STUB_BROKEN:-}" ]; then echo "no matching distribution"; exit 1; fi ;;
    "-c import ctypes"*) [ -z "${STUB_NO_NUMA:-}" ] ;;
    "-c import torch"* | "-m compileall "*) ;;
    *) echo "unexpected: $*" >&2; exit 9 ;;
esac
"""


class Checkout:
    """A copy of the scripts with a lock of two packages."""

    def __init__(self, root: Path):
        self.root, self.calls, self.python = root / "checkout", root / "calls", root / "python3.11"
        self.venv = self.root / ".venv"
        (self.root / "requirements").mkdir(parents=True)
        (self.root / "vgr_rl" / "cpu").mkdir(parents=True)
        (self.root / "scripts").mkdir()
        for name in ("install.sh", "common.sh"):
            shutil.copy(SCRIPTS / name, self.root / "scripts")
        self.lock = self.root / "requirements" / "cpu.lock"
        self.lock.write_text("one==1\ntwo==2\n")
        for name in ("pyproject.toml", "vgr_rl/cpu/_torchvision_cpu.py", "vgr_rl/cpu/torchvision_cpu.pth"):
            (self.root / name).touch()
        self.calls.touch()
        self.python.write_text(STUB)
        self.python.chmod(0o755)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        variables = {key: value for key, value in os.environ.items() if not key.startswith("VGR_")}
        variables |= {"VGR_PYTHON": str(self.python), "STUB_CALLS": str(self.calls)} | environment
        return subprocess.Popen(
            ["bash", str(self.root / "scripts" / "install.sh"), *arguments],
            env=variables,
            cwd=self.root.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def install(self, *arguments: str, **environment: str) -> tuple[int, str]:
        process = self.start(*arguments, **environment)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output

    def pip_calls(self) -> list[str]:
        return self.calls.read_text().splitlines()


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_the_second_call_does_nothing(checkout: Checkout):
    status, output = checkout.install()
    assert status == 0, output
    packages, ourselves = checkout.pip_calls()
    assert "--no-deps" in packages and "--editable" in ourselves
    assert checkout.install() == (0, "")
    assert len(checkout.pip_calls()) == 2


def test_a_changed_lock_is_installed_into_the_same_environment(checkout: Checkout):
    checkout.install()
    (checkout.venv / "kept").touch()
    checkout.lock.write_text("one==1\ntwo==3\n")
    assert checkout.install()[0] == 0
    assert len(checkout.pip_calls()) == 4
    assert (checkout.venv / "kept").exists()


def test_a_failed_install_shows_its_log_and_is_started_afresh(checkout: Checkout):
    status, output = checkout.install(STUB_BROKEN="yes")
    assert status == 1
    assert "no matching distribution" in output and str(checkout.venv / "install.log") in output
    (checkout.venv / "half").touch()
    assert checkout.install()[0] == 0
    assert not (checkout.venv / "half").exists()


def test_an_interrupted_install_is_started_afresh(checkout: Checkout):
    process = checkout.start(STUB_SLEEP="3")
    while not checkout.pip_calls():
        pass
    process.kill()
    process.communicate(timeout=60)
    (checkout.venv / "half").touch()
    assert checkout.install()[0] == 0
    assert not (checkout.venv / "half").exists()


def test_two_at_once_install_once(checkout: Checkout):
    first, second = (checkout.start(STUB_SLEEP="0.7") for _ in range(2))
    outputs = [process.communicate(timeout=60)[0] for process in (first, second)]
    assert first.returncode == second.returncode == 0
    assert len(checkout.pip_calls()) == 2
    assert sum("waiting for it" in output for output in outputs) == 1


def test_another_python_is_refused_by_name(checkout: Checkout):
    status, output = checkout.install(STUB_VERSION="3.12")
    assert status == 1
    assert f"VGR_PYTHON={checkout.python} is Python 3.12, expected 3.11" in output
    assert not checkout.venv.exists() or not list(checkout.venv.iterdir())


def test_a_python_that_does_not_exist_is_named(checkout: Checkout):
    status, output = checkout.install(VGR_PYTHON="/nowhere/python")
    assert status == 1 and "VGR_PYTHON=/nowhere/python does not run" in output


def test_a_missing_system_library_is_named_before_anything_is_installed(checkout: Checkout):
    status, output = checkout.install(STUB_NO_NUMA="yes")
    assert status == 1 and "needs libnuma.so.1" in output and "apt install libnuma1" in output
    assert checkout.pip_calls() == []


def test_a_folder_with_other_files_is_left_alone(checkout: Checkout, tmp_path: Path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "cat.jpg").touch()
    status, output = checkout.install(VGR_VENV=str(folder))
    assert status == 1 and "is no Python environment" in output
    assert [path.name for path in folder.iterdir()] == ["cat.jpg"]


def test_an_unknown_stack_is_refused(checkout: Checkout):
    status, output = checkout.install("tpu")
    assert status == 1 and "no stack named 'tpu'" in output
