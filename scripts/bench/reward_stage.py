"""Measure what rewards cost a training step; exits 1 above the limit: `python scripts/bench/reward_stage.py`.

One run of the tiny recipe grades its odd steps by the reward of TreeVGR and its even steps by a constant, so that what
else the machine does disturbs both alike. The learning rate is 0: all steps sample from one policy. Printed is the
ratio of the median times of the two kinds of steps, the first few of which are left out.
"""

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this file's folder would hide the package `rewards`

from rewards import TREEVGR, Reward, Score
from vgr_rl.grounding import Sample, Trace

LIMIT, WARM_UP = 1.03, 4
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Alternating:
    """The reward of TreeVGR on odd steps and a constant on even ones.

    Args:
        steps: training steps of the run.
    """

    steps: int

    def __call__(self, trace: Trace, sample: Sample) -> Score:
        """Grade one response as on an odd step."""
        composed = TREEVGR.score(trace, sample)
        return Score(composed.value, {"real": 1.0})

    def at(self, progress: float) -> Reward:
        """Return the reward of a step; the first has progress 0."""
        return self if round(progress * self.steps) % 2 == 0 else constant


def constant(trace: Trace, sample: Sample) -> Score:
    """Grade every response alike."""
    return Score(1.0, {"real": 0.0})


def main() -> None:
    """Run the command line entry."""
    parser = argparse.ArgumentParser(description="Compare steps with rewards with steps with a constant reward.")
    parser.add_argument("--steps", type=int, default=60, help="training steps, half of them with each reward")
    steps = parser.parse_args().steps
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        subprocess.run(command(run_dir, steps), check=True, env={**os.environ, "WANDB_MODE": "disabled"})
        lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    times: dict[float, list[float]] = {1.0: [], 0.0: []}
    for line in lines[WARM_UP:]:
        times[line["data"]["reward/real/mean"]].append(line["data"]["timing_s/step"])
    real, plain = statistics.median(times[1.0]), statistics.median(times[0.0])
    ratio = real / plain
    counts = f"{len(times[1.0])} and {len(times[0.0])} steps"
    logger.info(
        "step with rewards %.3f s, with a constant %.3f s (%s): %.3fx, limit %.2f", real, plain, counts, ratio, LIMIT
    )
    sys.exit(0 if ratio <= LIMIT else 1)


def command(run_dir: Path, steps: int) -> list[str]:
    """Return the run of the tiny recipe with the alternating reward."""
    term = f"+reward.terms.alternating={{use: '{Path(__file__).resolve()}:Alternating', params: {{steps: {steps}}}}}"
    return [
        *(sys.executable, "-m", "vgr_rl.main", "recipe=tiny", f"run_dir={run_dir}"),
        *("reward.terms.accuracy=null", "reward.terms.format=null", "reward.terms.dual_iou=null", term),
        *("actor_rollout_ref.actor.optim.lr=0", f"trainer.total_training_steps={steps}", "trainer.save_freq=-1"),
        *("trainer.logger=[]", "log_every_nth_group=0"),
    ]


if __name__ == "__main__":
    main()
