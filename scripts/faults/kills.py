"""Kills a run again and again and compares it with one that was left alone: `python -m scripts.faults.kills --out DIR`.

Both are the tiny recipe with `seed_rollouts=true` and a checkpoint every step. The second, under `supervise.restarts`,
gets SIGKILL at moments drawn by lot: its driver, policy worker, vLLM engine and task runner in turn. It has to end with
the same batches in the same order and the same weights. `DIR/kills.json` says how the two compare.
"""

import argparse
import contextlib
import json
import logging
import random
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from safetensors.torch import load_file

from scripts.faults.injections import find
from scripts.faults.runs import NotReached, Run, make_data

logger = logging.getLogger(__name__)

TARGETS = {"driver": None, "policy worker": "WorkerDict", "vLLM engine": "InprocServer", "task runner": "ray::Runner"}
STEPS_A_KILL = 4  # an attempt is left alone for one step, and killed in one of the next
WINDOW_S = 3.0
END_S = 900.0


def kill_again_and_again(run: Run, kills: int, seed: int) -> list[str]:
    """Kill a supervised run this often and return what was killed."""
    draw, killed = random.Random(seed), list[str]()
    for number in range(kills):
        driver = next_driver(run.driver)
        run.reach("save", times=run.entered("save") + 2)
        time.sleep(draw.uniform(0.0, WINDOW_S))
        name, command = list(TARGETS.items())[number % len(TARGETS)]
        (driver if command is None else find(driver, command)).kill()
        killed.append(f"{name} in {run.stage()}")
        logger.info("kill %d: %s", number + 1, killed[-1])
        psutil.wait_procs([driver], timeout=60)
    return killed


def next_driver(supervisor: psutil.Process) -> psutil.Process:
    """Wait for the next attempt.

    Raises:
        NotReached: the supervisor has ended.
    """
    while supervisor.is_running() and supervisor.status() != psutil.STATUS_ZOMBIE:
        for child in supervisor.children():  # what a killed driver leaves is among them, and goes
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.status() != psutil.STATUS_ZOMBIE and "vgr_rl.main" in child.cmdline():
                    return child
        time.sleep(0.05)
    raise NotReached("the supervisor has ended: there is no further attempt to kill")


def rollouts(run_dir: Path) -> list[tuple[int, str, int, str]]:
    """Return (step, sample id, rollout, response) of all rollouts that count, in order."""
    rows = [json.loads(line) for line in (run_dir / "samples.jsonl").read_text().splitlines()]
    return [(row["step"], row["id"], row["rollout"], row["response"]) for row in rows]


def compare(whole: Path, killed: Path) -> dict[str, Any]:
    """Return how the results of two run directories differ."""
    ours, theirs = rollouts(whole), rollouts(killed)
    weights, others = (load_file(run_dir / "model" / "model.safetensors") for run_dir in (whole, killed))
    assert weights.keys() == others.keys()
    return {
        "rollouts": len(ours),
        "same_batches": [row[:3] for row in ours] == [row[:3] for row in theirs],
        "other_responses": sum(a != b for a, b in zip(ours, theirs, strict=False)) + abs(len(ours) - len(theirs)),
        "largest_weight_difference": max(float((weights[name] - others[name]).abs().max()) for name in weights),
        "same_weights": all(weights[name].equal(others[name]) for name in weights),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and return 0 when the killed run ended as the other one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs and the result")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    out = given.out.absolute()
    (data, _), steps = make_data(out / "data"), STEPS_A_KILL * (given.kills + 1)
    overrides = {"whole": (), "killed": (f"supervise.restarts={given.kills}", "supervise.backoff_s=0")}
    killed: list[str] = []
    for name, more in overrides.items():
        shutil.rmtree(out / name, ignore_errors=True)
        run = Run(out / name, data, "seed_rollouts=true", *more, steps=steps, inside=[])
        try:
            if more:
                killed = kill_again_and_again(run, given.kills, given.seed)
            status = run.wait(END_S)
        finally:
            run.end()
        if status != 0:
            logger.error("%s: status %s: %s", name, status, run.log.read_text()[-3000:])
            return 1
    result = {"killed": killed, "steps": steps, **compare(out / "whole/run", out / "killed/run")}
    (out / "kills.json").write_text(json.dumps(result, indent=1) + "\n")
    logger.info("%s", json.dumps(result))
    return int(not (result["same_batches"] and result["same_weights"]))


if __name__ == "__main__":
    raise SystemExit(main())
