"""Train the tiny R-Sa2VA with RL from its cold start, once for each seed, and print what held-out masks gain by it.

`python -m scripts.ablations.masks [--out runs/mask_gain] [--seeds 0 1 2] [--steps 60]`: one cold start (seed 0), and
from it for each seed two runs of RL, without and with the loss of masks on the best rollout of a group. All are
evaluated greedily on 500 held-out samples of another seed: nothing was ever chosen by them, as the recipe's learning
rate was by its own. Errors are those of paired differences over samples and seeds (`results.pooled`). What is finished
is not run again.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from rich.console import Console

from rewards.mask_iou import VRTMaskIoU
from scripts.ablations.plan import Task, run_dir
from scripts.ablations.results import Values, pooled
from scripts.ablations.schedule import CHECKOUT, Schedule, exit_status
from vgr_rl.benchmarks.store import write_text
from vgr_rl.data.schema import read_samples
from vgr_rl.grounding import ImageGeometry, parse_trace

ARMS = {"rewards": ("rewards alone", 0.0), "best_rollout": ("and the best rollout's masks", 1.0)}
MEASURES = ("mask_iou", "masks")
"""`mask_iou`: the reward of the answer's masks, less 0.1 for each too many or too few. `masks`: how many it has."""

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
    return exit_status(lambda: _run(options))


def _run(options: argparse.Namespace) -> list[str]:
    if min(options.steps, options.jobs) < 1:
        raise ValueError(f"--steps={options.steps} --jobs={options.jobs} but both must be at least 1")
    os.chdir(CHECKOUT)  # the commands name folders relative to it
    found = tasks(options.out, options.seeds, options.steps)
    if missing := Schedule(found, options.out, Console(stderr=True)).run(options.jobs):
        return missing
    text = table(options.out, options.seeds)
    write_text(options.out / "table.md", text)
    log.info("%s", text)
    return []


def tasks(out: Path, seeds: Sequence[int], steps: int) -> list[Task]:
    """Return the commands: the data, the cold start, and seed by seed what begins at it."""
    data, fresh, start, recipe = out / "data", out / "fresh", out / "cold_start", "recipe=vrt/tiny"
    others = ("--seed", "1", "--sft", "0", "--sft-val", "0", "--train", "0")
    sft = [recipe, f"run_dir={start}", f"model.path={data / 'model'}", *_files(data / "sft_train", data / "sft_val")]
    found = [
        Task("data", (), ("vgr_rl.prepare", "tiny-masks", "--out", str(data)), data),
        Task("fresh", (), ("vgr_rl.prepare", "tiny-masks", "--out", str(fresh), *others), fresh),
        Task("train/cold_start", ("data",), ("vgr_rl.sft", *sft), start),
        _evaluation("cold_start", start, fresh),
    ]
    for seed in seeds:
        for arm, (_, weight) in ARMS.items():
            run, name = run_dir(out, arm, seed), f"{arm}/seed{seed}"
            rl = [recipe, f"seed={seed}", f"run_dir={run}", f"model.path={start / 'model'}"]
            rl += [*_files(data / "train", fresh / "heldout"), f"trainer.total_training_steps={steps}"]
            rl += [f"trainer.test_freq={steps}", "trainer.val_before_train=true", f"masks.best_rollout_weight={weight}"]
            found.append(Task(f"train/{name}", ("train/cold_start", "fresh"), ("vgr_rl.main", *rl), run))
            found.append(_evaluation(name, run, fresh))
    return found


def measured(out: Path, run: Path) -> dict[str, Values]:
    """Return `MEASURES` of the evaluation of a run, of each sample.

    Raises:
        ValueError: when a sample has no response.
    """
    samples = {row.sample.id: row.sample for row in read_samples(out / "fresh" / "heldout.parquet")}
    lines = (run / "heldout" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    responses = {row["key"]: row for row in map(json.loads, lines)}
    if missing := samples.keys() - responses.keys():
        raise ValueError(f"{run}: {len(missing)} of {len(samples)} samples have no response")
    reward, found = VRTMaskIoU(), {name: Values() for name in MEASURES}
    for name, sample in samples.items():
        geometry = ImageGeometry(sample.image_size, sample.image_size)
        row = responses[name]
        trace = parse_trace(row["response"], geometry, "orig_px", prefill="", masks=row.get("pred_masks"))
        found["mask_iou"][name] = reward(trace, sample).value
        found["masks"][name] = float(len(trace.seg_answer))
    return found


def table(out: Path, seeds: Sequence[int]) -> str:
    """Return a Markdown table: means, gains over the cold start with their errors, and the gain of each seed."""
    start = measured(out, out / "cold_start")
    rows = [
        ["", "mask reward", "gain", "by seed", "masks of an answer", "answer mIoU"],
        ["---"] * 6,
        ["cold start", f"{_mean([start], 'mask_iou'):.3f}", "", "", *_answers([start], [out / "cold_start"])],
    ]
    for arm, (title, _) in ARMS.items():
        runs = [run_dir(out, arm, seed) for seed in seeds]
        own = [measured(out, run) for run in runs]
        gains = [{name: value - start["mask_iou"][name] for name, value in one["mask_iou"].items()} for one in own]
        gain, error = pooled(gains)
        by_seed = ", ".join(f"{fmean(one.values()):+.3f}" for one in gains)
        reward = f"{_mean(own, 'mask_iou'):.3f}"
        rows.append([title, reward, f"{gain:+.3f} ± {error:.3f}", by_seed, *_answers(own, runs)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def _answers(found: Sequence[Mapping[str, Values]], runs: Sequence[Path]) -> list[str]:
    """Return how many masks an answer has, and the mIoU of the true ones, for which a mask too many is free."""
    results = [json.loads((run / "heldout" / "result.json").read_text(encoding="utf-8")) for run in runs]
    return [f"{_mean(found, 'masks'):.2f}", f"{fmean(one['answer']['miou'] for one in results):.3f}"]


def _mean(runs: Sequence[Mapping[str, Values]], name: str) -> float:
    return fmean(value for one in runs for value in one[name].values())


def _evaluation(name: str, run: Path, fresh: Path) -> Task:
    given = ("recipe=vrt/tiny", f"model={run / 'model'}", f"data={fresh / 'heldout.parquet'}", f"out={run / 'heldout'}")
    return Task(f"evaluate/{name}", (f"train/{name}", "fresh"), ("vgr_rl.evaluate", *given), run / "heldout")


def _files(train: Path, val: Path) -> tuple[str, str]:
    return f"data.train_files={train}.parquet", f"data.val_files={val}.parquet"


if __name__ == "__main__":
    sys.exit(main())
