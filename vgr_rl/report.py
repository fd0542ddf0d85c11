"""Make a page to look at from a run: `python -m vgr_rl.report RUN_DIR` (the demo's folder, or one run directory)."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

log = logging.getLogger(__name__)


def write_report(run_dir: Path) -> Path:
    """Write `report.html` into a run directory, and `summary.json` and `table.md` into the demo's; return the page.

    Raises:
        ValueError: when a piece of the run is missing; names the file and the command that makes it.
    """
    from vgr_rl.benchmarks.store import write_json, write_text
    from vgr_rl.viewer.comparison import comparison, markdown
    from vgr_rl.viewer.page import demo_report, render, training_report
    from vgr_rl.viewer.runs import DemoRun, read_any

    run = read_any(run_dir)
    page = run_dir / "report.html"
    if isinstance(run, DemoRun):
        write_text(page, render(demo_report(run)))
        summaries = {name: evaluation.summary for name, evaluation in run.evaluations.items()}
        write_json(run_dir / "summary.json", {**summaries, "seconds": run.seconds})
        write_text(run_dir / "table.md", markdown(comparison(run.evaluations["cold_start"], run.evaluations["grpo"])))
    else:
        write_text(page, render(training_report(run)))
    return page


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status (2: something is missing)."""
    parser = argparse.ArgumentParser(prog="python -m vgr_rl.report", description=__doc__)
    parser.add_argument("run_dir", type=Path, help="runs/demo, or a run directory of vgr_rl.main or vgr_rl.sft")
    parsed = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        page = write_report(parsed.run_dir)
    except ValueError as error:
        log.error("%s", error)
        return 2
    table = parsed.run_dir / "table.md"
    if table.exists():
        log.info("%s", table.read_text())
    log.info("report: %s", page.resolve())
    return 0


if __name__ == "__main__":
    sys.exit(main())
