"""Make a page to look at from a run.

python -m vgr_rl.report RUN_DIR                # the demo's folder, or one run directory: RUN_DIR/report.html
python -m vgr_rl.report --compare RUN_A RUN_B  # the same items before and after: RUN_B/compare.html
python -m vgr_rl.report --live RUN_DIR         # serve the page and follow the run while it goes on
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from vgr_rl.viewer.pictures import LONGEST_SIDE, Album
from vgr_rl.viewer.runs import SAMPLES

log = logging.getLogger(__name__)


def write_report(run_dir: Path, samples: int = SAMPLES, picture_px: int = LONGEST_SIDE) -> Path:
    """Write `report.html` into a run directory, and `summary.json` and `table.md` into the demo's; return the page.

    Args:
        run_dir: the demo's folder or a run directory.
        samples: how many rollouts of a run, and responses of a comparison, the page holds at most.
        picture_px: longest side of its pictures, pixels.

    Raises:
        ValueError: when a piece of the run is missing; names the file and the command that makes it.
    """
    from vgr_rl.benchmarks.store import write_json, write_text
    from vgr_rl.viewer.comparison import comparison, markdown
    from vgr_rl.viewer.page import write_page
    from vgr_rl.viewer.reports import demo_report, training_report
    from vgr_rl.viewer.runs import DemoRun, read_any

    run, album = read_any(run_dir, samples), Album(picture_px)
    page = run_dir / "report.html"
    if isinstance(run, DemoRun):
        write_page(page, demo_report(run, album, samples))
        summaries = {name: evaluation.summary for name, evaluation in run.evaluations.items()}
        write_json(run_dir / "summary.json", {**summaries, "seconds": run.seconds})
        write_text(run_dir / "table.md", markdown(comparison(run.evaluations["cold_start"], run.evaluations["grpo"])))
    else:
        write_page(page, training_report(run, album))
    return page


def write_comparison(before: Path, after: Path, samples: int = SAMPLES, picture_px: int = LONGEST_SIDE) -> Path:
    """Write `compare.html` into the second of two evaluations or training runs; return the page.

    Raises:
        ValueError: when one cannot be read, or the two have nothing in common.
    """
    from vgr_rl.viewer.page import write_page
    from vgr_rl.viewer.reports import compared_report
    from vgr_rl.viewer.runs import read_one

    runs = read_one(before, samples // 2), read_one(after, samples // 2)
    write_page(after / "compare.html", compared_report(*runs, Album(picture_px), samples))
    return after / "compare.html"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status (2: something is missing)."""
    parser = _parser()
    parsed = parser.parse_args(arguments)
    if parsed.live and parsed.compare:
        parser.error("--live follows one RUN_DIR and cannot be combined with --compare")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        if parsed.live:
            from vgr_rl.viewer.live import serve

            serve(parsed.run_dir, parsed.host, parsed.port, parsed.samples, parsed.picture_px)
            return 0
        if parsed.compare:
            before, after = parsed.compare
            page = write_comparison(before, after, parsed.samples, parsed.picture_px)
        else:
            page = write_report(parsed.run_dir, parsed.samples, parsed.picture_px)
    except ValueError as error:
        log.error("%s", error)
        return 2
    table = page.parent / "table.md"
    if table.exists() and not parsed.compare:
        log.info("%s", table.read_text())
    log.info("report: %s (%.1f MB)", page.resolve(), page.stat().st_size / 1e6)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m vgr_rl.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "run_dir", type=Path, nargs="?", help="runs/demo, or a run directory of vgr_rl.main or vgr_rl.sft"
    )
    what.add_argument(
        "--compare", type=Path, nargs=2, metavar=("RUN_A", "RUN_B"), help="two folders of vgr_rl.evaluate, or two runs"
    )
    parser.add_argument("--live", action="store_true", help="serve the page and follow the run")
    parser.add_argument("--host", default="127.0.0.1", help="with --live: the address to listen at (%(default)s)")
    parser.add_argument("--port", type=int, default=8050, help="with --live: the port, 0 for any free (%(default)s)")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="how many responses at most (%(default)s)")
    parser.add_argument("--picture-px", type=int, default=LONGEST_SIDE, help="longest side of pictures (%(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
