"""Injects one fault a run and records what became of it: `python -m scripts.faults --out DIR`.

Each run is the tiny recipe; at the moment that was asked for, in its second step, one thing happens to it. It has to
recover, or to end within 60 s with a status other than 0, a word on who failed and no process left. `DIR/results.jsonl`
gets a line a run, `DIR/table.md` what both this and earlier commands with that DIR found.
"""

import argparse
import json
import logging
import re
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.faults.injections import FAULTS
from scripts.faults.runs import MOMENTS, NotReached, Run, make_data
from vgr_rl.training.shared_memory import SegmentGuard

logger = logging.getLogger(__name__)

LIMIT_S = 60.0
HUNG_S = 240.0
STEPS = 4


def trial(name: str, moment: str, out: Path) -> dict[str, Any]:
    """Run once with a fault, and return what happened."""
    fault, segments = FAULTS[name], SegmentGuard()
    data, overrides = make_data(out / f"data_{fault.setup}", fault.setup)
    folder = out / f"{name} {moment}".replace(" ", "_")
    shutil.rmtree(folder, ignore_errors=True)
    run = Run(folder, data, *overrides, steps=STEPS)
    try:
        run.reach(MOMENTS[moment], times=2)
        run.know_family()
        fault.inject(run.driver, run.run_dir)
        injected_s = time.monotonic()
        code = run.wait(HUNG_S)
        ended_s = time.monotonic() - injected_s
        while run.alive() and time.monotonic() - injected_s < HUNG_S:
            time.sleep(0.1)
        seconds = max(ended_s, time.monotonic() - injected_s if fault.says is None else 0.0)
        left = sorted({process.name() for process in run.alive()})
    finally:
        run.end()
        segments.remove_new()
    said = re.search(f".*(?:{fault.says}).*", run.log.read_text(errors="replace")) if fault.says else None
    return {
        "fault": name,
        "moment": moment,
        "verdict": verdict(code, fault.codes, seconds, said is not None or fault.says is None, left),
        "seconds": round(seconds, 1),
        "code": code,
        "says": said[0].strip()[:300] if said else None,
        "left": left,
    }


def verdict(code: int | None, codes: Sequence[int], seconds: float, named: bool, left: Sequence[str]) -> str:
    """Judge a run: what is neither "recovered" nor "ended" is a bug."""
    if code is None:
        return "HUNG"
    if code == 0 and not codes:
        return "recovered"
    if code == 0 or (codes and code not in codes):
        return "WRONG STATUS"
    if not named:
        return "NAMED NOBODY"
    if left:
        return "LEFT PROCESSES"
    return "ended" if seconds <= LIMIT_S else "TOO LATE"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the results as Markdown; the last one of a fault and moment counts."""
    newest = {(row["fault"], row["moment"]): row for row in rows}
    lines = ["| fault | moment | what became of it | after | status |", "|---|---|---|---|---|"]
    for (fault, moment), row in sorted(newest.items(), key=lambda item: (list(FAULTS).index(item[0][0]), item[0][1])):
        lines.append(f"| {fault} | {moment} | {row['verdict']} | {row['seconds']:.0f} s | {row['code']} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and return 0 when every run recovered or ended as it should."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs and results")
    parser.add_argument("--faults", default=",".join(FAULTS), help=f"of: {', '.join(FAULTS)}")
    parser.add_argument("--moments", default=",".join(MOMENTS), help=f"of: {', '.join(MOMENTS)}")
    given = parser.parse_args(arguments)
    faults, moments = given.faults.split(","), given.moments.split(",")
    if unknown := [*(set(faults) - FAULTS.keys()), *(set(moments) - MOMENTS.keys())]:
        parser.error(f"unknown: {', '.join(unknown)}")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # ends the run that is under way, too
    out, bad = given.out.absolute(), 0
    out.mkdir(parents=True, exist_ok=True)
    for name in faults:
        for moment in moments:
            try:
                row = trial(name, moment, out)
            except NotReached as error:
                logger.error("%s, %s: %s", name, moment, error)
                bad += 1
                continue
            bad += row["verdict"] not in ("recovered", "ended")
            with (out / "results.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
            logger.info("%s", json.dumps(row))
            lines = (out / "results.jsonl").read_text().splitlines()
            (out / "table.md").write_text(table([json.loads(line) for line in lines]))
    return int(bad > 0)


if __name__ == "__main__":
    raise SystemExit(main())
