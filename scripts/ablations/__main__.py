"""Rerun the tiny recipe with parts taken away, and write what was measured.

Every arm of `scripts/ablations/tiny.yaml` is trained, and evaluated on the same 1,000 held-out items, once for each of
its seeds. What is finished is not run again; an interrupted run goes on from its checkpoint.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
from rich.console import Console

from scripts.ablations import documents
from scripts.ablations.plan import Plan, read_plan
from scripts.ablations.results import as_text, collect
from scripts.ablations.schedule import CHECKOUT, Schedule, exit_status
from vgr_rl.benchmarks.store import write_text

PLAN = Path(__file__).with_name("tiny.yaml")
RECIPE = CHECKOUT / "recipes" / "tiny"
COMMAND = "bash scripts/ablations.sh"
_GIB_A_RUN = 8


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 1 when a run failed, 2 for a wrong option, 130 when stopped."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = _parser().parse_args(arguments)
    return exit_status(lambda: _run(options, Console(stderr=True)))


def _run(options: argparse.Namespace, console: Console) -> list[str]:
    if options.jobs < 1:
        raise ValueError(f"--jobs={options.jobs} but it must be at least 1")
    plan = read_plan(options.plan).only(options.arms, options.seeds)
    os.chdir(CHECKOUT)  # the commands name folders relative to it
    schedule = Schedule(plan.tasks(options.out), options.out, console)
    if options.write_only:
        plan = plan.without(schedule.unfinished())
    elif missing := schedule.run(options.jobs):
        return missing
    write(plan, options.out, options.publish, console)
    return []


def write(plan: Plan, out: Path, publish: bool, console: Console) -> None:
    """Write results.json, tables.md and figures into the output folder, or into the recipe and the documents."""
    results = collect(plan, out, COMMAND)
    folder = RECIPE if publish else out
    write_text(folder / "results.json", as_text(results))
    documents.write_figures(results, folder)
    if publish:
        documents.update(results, CHECKOUT)
        console.print(f"written: {folder}/results.json, its figures and the tables of the documents")
    else:
        write_text(out / "tables.md", documents.all_tables(results))
        console.print(f"written: {out}/results.json, {out}/tables.md and figures")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--plan", type=Path, default=PLAN, help="plan file (scripts/ablations/tiny.yaml)")
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"), help="output folder (runs/ablations)")
    parser.add_argument("--arms", nargs="+", metavar="ARM", help="these arms and those that they start from (all)")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="these seeds (all of each arm)")
    parser.add_argument("--jobs", type=int, default=_jobs(), help="runs at once (a core and 8 GiB each: %(default)s)")
    parser.add_argument("--write-only", action="store_true", help="run nothing, write what the finished runs measured")
    parser.add_argument("--publish", action="store_true", help="write into recipes/tiny and the README's tables")
    return parser


def _jobs() -> int:
    return max(1, min(os.cpu_count() or 1, psutil.virtual_memory().available // (_GIB_A_RUN << 30)))


if __name__ == "__main__":
    sys.exit(main())
