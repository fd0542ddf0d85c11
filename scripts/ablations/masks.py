"""Train the tiny R-Sa2VA with RL from its cold start, once for each seed, and print what held-out masks gain by it.

`python -m scripts.ablations.masks [--out runs/mask_gain] [--seeds 0 1 2] [--steps 60]`: one cold start (seed 0), and
from it for each seed two runs of RL, without and with the loss of masks on the best rollout of a group. The reward of
the answers' masks (`mask_iou`, which takes 0.1 for each mask too many or too few) is validated on 500 held-out samples
before the first step and after the last, greedily. They have a seed of their own: nothing was ever chosen by them, as
the recipe's learning rate was by its own. What is finished is not run again.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev

from rich.console import Console

from scripts.ablations.plan import Task, run_dir
from scripts.ablations.schedule import CHECKOUT, Schedule, Stopped
from vgr_rl.benchmarks.store import write_text

ARMS = {"rewards": ("rewards alone", 0.0), "best_rollout": ("and the best rollout's masks", 1.0)}
METRIC = "val-aux/tiny_masks/mask_iou/mean@1"
HEADER = ["seed", "cold start", *(f"{title}{suffix}" for title, _ in ARMS.values() for suffix in ("", ", gain"))]
log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 1 when a run failed, 2 for a wrong option, 130 when stopped."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    parser = argparse.ArgumentParser(prog="python -m scripts.ablations.masks", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/mask_gain"), help="output folder (%(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="one of each run")
    parser.add_argument("--steps", type=int, default=60, help="of RL (%(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once (a core and 8 GiB each: %(default)s)")
    options = parser.parse_args(arguments)
    if min(options.steps, options.jobs) < 1:
        parser.error(f"--steps={options.steps} --jobs={options.jobs} but both must be at least 1")
    os.chdir(CHECKOUT)  # the commands name folders relative to it
    try:
        schedule = Schedule(tasks(options.out, options.seeds, options.steps), options.out, Console(stderr=True))
        if missing := schedule.run(options.jobs):
            log.error("not finished: %s", ", ".join(missing))
            return 1
    except ValueError as error:
        log.error("error: %s", error)
        return 2
    except Stopped:
        log.error("stopped; the same command goes on from here")
        return 130
    text = table({seed: measured(options.out, seed, options.steps) for seed in options.seeds})
    write_text(options.out / "table.md", text)
    log.info("%s", text)
    return 0


def tasks(out: Path, seeds: Sequence[int], steps: int) -> list[Task]:
    """Return the commands: the data, the cold start, and seed by seed what begins at it."""
    data, fresh, start, recipe = out / "data", out / "fresh", out / "cold_start", "recipe=vrt/tiny"
    others = ("--seed", "1", "--sft", "0", "--sft-val", "0", "--train", "0")
    sft = [recipe, f"run_dir={start}", f"model.path={data / 'model'}", *_files(data / "sft_train", data / "sft_val")]
    found = [
        Task("data", (), ("vgr_rl.prepare", "tiny-masks", "--out", str(data)), data),
        Task("fresh", (), ("vgr_rl.prepare", "tiny-masks", "--out", str(fresh), *others), fresh),
        Task("cold_start", ("data",), ("vgr_rl.sft", *sft), start),
    ]
    for seed in seeds:
        for arm, (_, weight) in ARMS.items():
            run = run_dir(out, arm, seed)
            rl = [recipe, f"seed={seed}", f"run_dir={run}", f"model.path={start / 'model'}"]
            rl += [*_files(data / "train", fresh / "heldout"), f"masks.best_rollout_weight={weight}"]
            rl += [
                f"trainer.total_training_steps={steps}",
                f"trainer.test_freq={steps}",
                "trainer.val_before_train=true",
            ]
            found.append(Task(f"{arm}/seed{seed}", ("cold_start", "fresh"), ("vgr_rl.main", *rl), run))
    return found


def measured(out: Path, seed: int, steps: int) -> dict[str, float]:
    """Return the metric of the cold start and at the end of each arm.

    Raises:
        ValueError: when the arms did not begin with the same score, up to how sums are rounded.
    """
    ends, starts = {}, []
    for arm in ARMS:
        path = run_dir(out, arm, seed) / "metrics.jsonl"
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        scores = {row["step"]: row["data"][METRIC] for row in rows if METRIC in row["data"]}
        starts.append(scores[0])
        ends[arm] = scores[steps]
    if max(starts) - min(starts) > 0.005:
        raise ValueError(f"arms of seed {seed} begin with {sorted(starts)} but they have one cold start")
    return {"cold_start": starts[0], **ends}


def table(scores: dict[int, dict[str, float]]) -> str:
    """Return scores by seed, and their means with the standard error over seeds, as a Markdown table."""
    rows = [HEADER, ["---"] * len(HEADER)]
    for seed, own in scores.items():
        gains = [text for arm in ARMS for text in (f"{own[arm]:.3f}", f"{own[arm] - own['cold_start']:+.3f}")]
        rows.append([str(seed), f"{own['cold_start']:.3f}", *gains])
    if len(scores) > 1:
        last = ["mean", _mean([own["cold_start"] for own in scores.values()])]
        for arm in ARMS:
            last.append(_mean([own[arm] for own in scores.values()]))
            last.append(_mean([own[arm] - own["cold_start"] for own in scores.values()], sign="+"))
        rows.append(last)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def _mean(values: Sequence[float], sign: str = "") -> str:
    return f"{fmean(values):{sign}.3f} ± {stdev(values) / len(values) ** 0.5:.3f}"


def _files(train: Path, val: Path) -> tuple[str, str]:
    return f"data.train_files={train}.parquet", f"data.val_files={val}.parquet"


if __name__ == "__main__":
    sys.exit(main())
