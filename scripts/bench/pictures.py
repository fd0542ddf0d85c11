"""Measure what pictures of rollouts cost a training step; exits 1 above the limit: `python scripts/bench/pictures.py`.

One run of a recipe with wandb (offline), tensorboard and the default keys of `pictures`, or those given after `--`.
Printed is the time in which rollouts were drawn and handed to the trackers (`timing_s/pictures`; training waits for
it) as a share of the time of all steps.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

LIMIT = 0.01
logger = logging.getLogger(__name__)


def main() -> None:
    """Run the command line entry."""
    parser = argparse.ArgumentParser(description="Compare the time of pictures with the time of steps.")
    parser.add_argument("--recipe", default="tiny", help="recipe of vgr_rl.main")
    parser.add_argument("--steps", type=int, default=50, help="training steps")
    parser.add_argument("--keep", type=Path, help="folder for the run directory (default: removed)")
    parser.add_argument("overrides", nargs="*", help="overrides of vgr_rl.main, after --")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with tempfile.TemporaryDirectory() as folder:
        run_dir = (options.keep or Path(folder)) / "run"
        command = [
            *(sys.executable, "-m", "vgr_rl.main", f"recipe={options.recipe}", f"run_dir={run_dir}"),
            *(f"trainer.total_training_steps={options.steps}", "trainer.save_freq=-1", *options.overrides),
        ]
        subprocess.run(command, check=True, env={**os.environ, "WANDB_MODE": "offline"})
        steps = [json.loads(line)["data"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    pictures_s, steps_s = (sum(step[f"timing_s/{name}"] for step in steps) for name in ("pictures", "step"))
    shown = [step["timing_s/pictures"] for step in steps if step["timing_s/pictures"] > 1e-3]
    share = pictures_s / (steps_s + pictures_s)
    logger.info(
        "%d steps of %.2f s; pictures in %d of them, %s s: %.2f%% of the time, limit %.0f%%",
        *(len(steps), steps_s / len(steps), len(shown), ", ".join(f"{seconds:.3f}" for seconds in shown)),
        *(100 * share, 100 * LIMIT),
    )
    sys.exit(0 if share <= LIMIT else 1)


if __name__ == "__main__":
    main()
