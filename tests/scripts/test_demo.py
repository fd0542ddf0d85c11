"""The logic of scripts/demo.sh around its stages: a stub stands for the Python of the environment."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
SCRIPTS = Path(__file__).parents[2] / "scripts"
STAGES = ["data", "cold_start", "grpo", "evaluate", "report"]
ENTRIES = ["prepare", "sft", "main", "evaluate", "report"]
STUB = f"""#!/usr/bin/env bash
# contained.py runs for real; an entry notes its name and makes the folder it was given.
case "$1" in *contained.py) exec {sys.executable} "$@" ;; esac
entry=${{2#vgr_rl.}}
echo "$entry" >>"$STUB_CALLS"
if [ "$entry" = prepare ]; then mkdir -p "${{@: -1}}"; fi
for argument in "$@"; do
    case $argument in
    out=\\[*) argument=${{argument#out=[}} && mkdir -p "$(dirname "${{argument%%,*}}")" ;;
    run_dir=*) mkdir -p "${{argument#*=}}" && echo "$$" >"${{argument#*=}}/pid" ;;
    esac
done
if [ "$entry" = report ]; then echo "| the table |" >"${{@: -1}}/table.md"; fi
echo "this is $entry"
if [ "$entry" = "${{STUB_HANGS:-}}" ]; then sleep 600; fi
if [ "$entry" = "${{STUB_FAILS:-}}" ]; then echo "because of reasons"; exit 3; fi
"""


class Checkout:
    """A copy of the scripts with one recipe, and an environment that only pretends."""

    def __init__(self, root: Path):
        self.root, self.calls = root / "checkout", root / "calls"
        self.demo = self.root / "runs" / "demo"
        (self.root / "scripts").mkdir(parents=True)
        for name in ("demo.sh", "common.sh", "contained.py"):
            shutil.copy(SCRIPTS / name, self.root / "scripts")
        (self.root / "scripts" / "install.sh").write_text("exit 0\n")
        self.recipe = self.root / "recipes" / "tiny" / "grpo.yaml"
        self.recipe.parent.mkdir(parents=True)
        self.recipe.write_text("lr: 1\n")
        (self.root / ".venv" / "bin").mkdir(parents=True)
        (self.root / ".venv" / ".vgr-rl-installed").write_text("hash\n42\n")
        (self.root / ".venv" / "bin" / "python").write_text(STUB)
        (self.root / ".venv" / "bin" / "python").chmod(0o755)
        self.calls.touch()

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        variables = {key: value for key, value in os.environ.items() if not key.startswith("VGR_")}
        variables |= {"STUB_CALLS": str(self.calls)} | environment
        return subprocess.Popen(
            ["bash", str(self.root / "scripts" / "demo.sh"), *arguments],
            env=variables,
            cwd="/",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str, **environment: str) -> tuple[int, str]:
        process = self.start(*arguments, **environment)
        output, _ = process.communicate(timeout=100)
        return process.returncode, output

    def new_calls(self) -> list[str]:
        calls = self.calls.read_text().split()
        self.calls.write_text("")
        return calls


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_all_stages_run_once_and_say_where_to_look(checkout: Checkout):
    status, output = checkout.run()
    assert status == 0, output
    assert checkout.new_calls() == ENTRIES
    assert list(json.loads((checkout.demo / "seconds.json").read_text())) == ["install", *STAGES]
    assert output.count("(about ") == len(STAGES) and f"{checkout.demo}/report.html" in output
    assert "| the table |" in output
    status, output = checkout.run()
    assert status == 0 and checkout.new_calls() == []
    assert json.loads((checkout.demo / "seconds.json").read_text())["install"] == 42


def test_fresh_runs_all_again(checkout: Checkout):
    checkout.run()
    checkout.new_calls()
    assert checkout.run("--fresh")[0] == 0
    assert checkout.new_calls() == ENTRIES


def test_a_failed_stage_shows_its_log_and_is_where_the_next_call_goes_on(checkout: Checkout):
    status, output = checkout.run(STUB_FAILS="main")
    assert status == 1
    assert "| because of reasons" in output and str(checkout.demo / "logs" / "grpo.log") in output
    assert checkout.new_calls() == ENTRIES[:3]
    assert checkout.run()[0] == 0
    assert checkout.new_calls() == ENTRIES[2:]


def test_a_changed_recipe_runs_what_depends_on_it_without_what_was_left_there(checkout: Checkout):
    checkout.run()
    checkout.new_calls()
    checkout.recipe.write_text("lr: 2\n")
    (checkout.demo / "grpo" / "old_checkpoint").touch()
    checkout.run()
    assert checkout.new_calls() == ENTRIES
    assert not (checkout.demo / "grpo" / "old_checkpoint").exists()


def test_an_interrupted_stage_goes_on_from_what_it_left(checkout: Checkout):
    checkout.run(STUB_FAILS="main")
    (checkout.demo / "grpo" / "checkpoint").touch()
    checkout.run()
    assert (checkout.demo / "grpo" / "checkpoint").exists()


def test_a_removed_result_is_made_again(checkout: Checkout):
    checkout.run()
    checkout.new_calls()
    shutil.rmtree(checkout.demo / "grpo")
    checkout.run()
    assert checkout.new_calls() == ["main"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_demo_and_its_stage(checkout: Checkout, number: signal.Signals, status: int):
    process = checkout.start(STUB_HANGS="sft")
    pid = checkout.demo / "sft" / "pid"
    while not (pid.exists() and pid.read_text()):
        time.sleep(0.05)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == status
    assert not Path(f"/proc/{pid.read_text().strip()}").exists()


def test_two_demos_in_one_folder_are_refused(checkout: Checkout):
    first = checkout.start(STUB_HANGS="sft")
    while not (checkout.demo / "sft" / "pid").exists():
        time.sleep(0.05)
    try:
        status, output = checkout.run()
        assert status == 1 and "another demo is writing" in output
    finally:
        first.send_signal(signal.SIGTERM)
        first.communicate(timeout=60)


def test_an_unknown_option_shows_the_usage(checkout: Checkout):
    status, output = checkout.run("--what")
    assert status == 2 and "--fresh" in output


def test_the_files_that_stages_depend_on_exist():
    text = (SCRIPTS / "demo.sh").read_text()
    paths = set(re.findall(r"(?:vgr_rl|recipes|requirements)/[\w./]+", text))
    assert len(paths) > 10
    assert [path for path in sorted(paths) if not (SCRIPTS.parent / path).exists()] == []
