"""Measure what a step costs the driver as the batch grows; exits 1 when that is not linear.

    python scripts/bench/growth.py [--sizes 64 1024 16384] [--prompt-tokens 2000] [--response-tokens 400]

The trainer, its loop, TransferQueue and the files of the run are the real ones, and pictures are paths, as everywhere.
Engines are not there (`growth_stand_ins.py`): rollouts come from an actor that grades made-up responses and stores them
as the agent loop does, and a worker group of 64 nodes with 8 GPUs counts what it is sent.

Printed for each size, of the cheaper of two steps, since the first also has to get its memory: CPU seconds of the
driver, wall seconds without the rollouts, the peak of the driver's memory over what it held before, and what
TransferQueue's storage grew by. Then lines are fitted; on a machine that is busy the wall time is no measure, and it is
not judged. It takes ten minutes on two cores, nearly all of it the rollouts.
"""

import argparse
import copy
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this file's folder would hide the package `rewards`

import numpy as np
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, open_dict

from vgr_rl.config import entry
from vgr_rl.data.schema import Row, image_path, write_samples
from vgr_rl.data.tiny_world import rl_rows
from vgr_rl.training import environment, launch

GROUP, STEPS, NODES, GPUS_PER_NODE = 8, 2, 64, 8
LIMIT = 1.3  # that the largest step may cost, by the line through the others
COSTS = {"cpu_s": "CPU s", "wall_s": "wall s", "driver_mib": "driver MiB", "stored_mib": "stored MiB"}
JUDGED = ("cpu_s", "driver_mib", "stored_mib")
logger = logging.getLogger("bench")


@dataclass(frozen=True, slots=True)
class Line:
    """A cost by the sequences of a step: `fixed + slope * sequences / 1000`.

    Attributes:
        fixed: of any step.
        slope: of 1,000 sequences.
        excess: what the largest step costs, by what the line says.
    """

    fixed: float
    slope: float
    excess: float

    @classmethod
    def through(cls, sequences: Sequence[int], costs: Sequence[float]) -> "Line":
        """Fit all sizes but the largest, by relative error, and compare that one with the line."""
        thousands, values = np.array(sequences) / 1000, np.array(costs)
        rows = np.stack([1 / values, thousands / values], axis=1)
        fixed, slope = np.linalg.lstsq(rows[:-1], np.ones(len(rows) - 1), rcond=None)[0]
        return cls(float(fixed), float(slope), float(values[-1] / (fixed + slope * thousands[-1])))

    def at(self, sequences: int) -> float:
        """Return the cost of a step."""
        return self.fixed + self.slope * sequences / 1000


def main() -> int:
    """Print the table, the lines and the estimate; return the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    parser = argparse.ArgumentParser(description="Measure the driver's step from small batches to large ones.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 256, 1024, 4096, 16384], help="sequences a step")
    parser.add_argument("--prompt-tokens", type=int, default=2000, help="tokens of a prompt, its picture's included")
    parser.add_argument("--response-tokens", type=int, default=400, help="mean length of a response")
    parser.add_argument("--per-node", type=int, default=512, help="sequences a node of the estimate")
    options = parser.parse_args()
    sizes = sorted(options.sizes)
    with tempfile.TemporaryDirectory(prefix="vgr") as folder:
        table = measure(Path(folder), sizes, options.prompt_tokens, options.response_tokens)
    logger.info("%9s  %s", "sequences", "  ".join(f"{title:>10}" for title in COSTS.values()))
    for size, costs in table.items():
        logger.info("%9d  %s", size, "  ".join(f"{costs[name]:10.2f}" for name in COSTS))
    lines = {name: Line.through(sizes, [costs[name] for costs in table.values()]) for name in COSTS}
    for name, line in lines.items():
        logger.info("%10s: %.3g + %.3g for 1,000 sequences; %d cost %.2f of that (limit %s)",
                    COSTS[name], line.fixed, line.slope, sizes[-1], line.excess, LIMIT)  # fmt: skip
    whole = NODES * options.per_node
    estimate = ", ".join(f"{COSTS[name]} {line.at(whole):,.0f}" for name, line in lines.items())
    logger.info("%d nodes with %d sequences each, %d in all: %s", NODES, options.per_node, whole, estimate)
    return 0 if all(lines[name].excess <= LIMIT for name in JUDGED) else 1


def measure(
    folder: Path, sizes: Sequence[int], prompt_tokens: int, response_tokens: int
) -> dict[int, dict[str, float]]:
    """Return the costs of a step of each size, of the step that took the least CPU time."""
    write_data(folder, max(sizes) // GROUP)
    config = configuration(folder)
    env = environment.apply(config.hardware.env)
    launch.start_ray(config, env)
    import ray
    import transfer_queue as tq

    from scripts.bench import growth_stand_ins

    tq.init(config.transfer_queue)
    actors = [ray.remote(growth_stand_ins.Rollouts).remote(config, prompt_tokens, response_tokens)]
    table = {}
    for size in sizes:
        sized = copy.deepcopy(config)
        with open_dict(sized):
            sized.run_dir = str(folder / str(size))
            sized.trainer.total_training_steps = STEPS
            sized.data.train_batch_size = sized.actor_rollout_ref.actor.ppo_mini_batch_size = size // GROUP
        launch.open_run_dir(sized)
        costs = growth_stand_ins.run(sized, min(NODES * GPUS_PER_NODE, size), actors)
        cheapest = min(costs, key=lambda cost: cost.cpu_s)
        table[size] = {name: getattr(cheapest, name) for name in COSTS}
        logger.info("%d sequences: %s", size, table[size])
    tq.close()
    ray.shutdown()
    return table


def write_data(folder: Path, prompts: int) -> None:
    """Write pictures of the tiny world, data that refer to them by path, and a tiny model."""
    from vgr_rl.tiny.model import build_model, save_model

    def rows(count: int) -> Any:
        for number, row in enumerate(rl_rows("train", count, seed=0)):
            picture = folder / f"{number}.png"
            picture.write_bytes(row.images[0]["bytes"])
            yield Row(row.sample, row.prompt, [image_path(picture)])

    write_samples(rows(prompts), folder / "train.parquet")
    write_samples(rows(8), folder / "val.parquet", "val")
    save_model(build_model("qwen2_5_vl"), "qwen2_5_vl", folder / "model")


def configuration(folder: Path) -> DictConfig:
    """Return the configuration of a run that only steps."""
    entry.register()
    overrides = [
        *(f"run_dir={folder}/run", f"model.path={folder}/model", f"actor_rollout_ref.rollout.n={GROUP}"),
        *(f"data.train_files={folder}/train.parquet", f"data.val_files={folder}/val.parquet"),
        *("trainer.total_epochs=1000", "trainer.save_freq=-1", "trainer.resume_mode=disable", "trainer.logger=[]"),
        *("guards.stage_timeout_s=3600", "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=1"),
    ]
    with initialize_config_module("vgr_rl.config", version_base="1.3"):
        config = compose("main", overrides=overrides)
    launch._derive(config)
    return config


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)
