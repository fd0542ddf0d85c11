"""Scores that a training run has given already: `samples.jsonl` of `vgr_rl.main`.

Its rewards may need more than the text, such as the masks of R-Sa2VA, which the policy's workers make.
"""

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from vgr_rl.data.filters.decisions import Graded
from vgr_rl.data.filters.run import Decide, Selection

logger = logging.getLogger("vgr_rl.prepare")


def filter_by_run(selection: Selection, run_dir: Path, decide: Decide) -> None:
    """Decide about every sample by the rollouts of a run, and write.

    Raises:
        ValueError: the run has no rollouts, or none of these samples.
    """
    order = selection.ids()
    found = read_rollouts(run_dir, order)
    if not any(row["scores"] for row in found.values()):
        raise ValueError(f"--run={run_dir} has no rollouts of the {len(order)} samples of --input")
    if learning_rate := _learning_rate(run_dir):
        logger.warning(
            "%s learnt while it sampled (actor_rollout_ref.actor.optim.lr=%g): its scores are of many models; 0 leaves "
            "the model as it is",
            run_dir,
            learning_rate,
        )
    graded = {name: Graded(tuple(row["scores"]), row["why"]) for name, row in found.items()}
    selection.write(decide(graded), found)


def read_rollouts(run_dir: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return `scores`, `answers` and `why` it is not graded of each sample, in this order.

    Raises:
        ValueError: when the run has no file of rollouts.
    """
    path = _file_of(run_dir, "samples.jsonl")
    found: dict[str, dict[str, Any]] = {name: {"scores": [], "answers": [], "why": ""} for name in names}
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if not line.endswith("\n"):
                break  # what a kill cut off is no line
            row = json.loads(line)
            if (own := found.get(row["id"])) is None:
                continue
            own["answers"].append(row["predicted_answer"])
            if row["score"] is None:
                own["why"] = "; ".join(f"{term}: {reason}" for term, reason in row["reasons"].items()) or "no reward"
            else:
                own["scores"].append(row["score"])
    for own in found.values():
        if not own["answers"]:
            own["why"] = "no rollouts"
    return found


def _learning_rate(run_dir: Path) -> float:
    config = yaml.safe_load(_file_of(run_dir, "config.yaml").read_text(encoding="utf-8"))
    return float(config["actor_rollout_ref"]["actor"]["optim"]["lr"])


def _file_of(run_dir: Path, name: str) -> Path:
    path = run_dir / name
    if not path.is_file():
        raise ValueError(f"--run={run_dir}: {path} is missing; vgr_rl.main writes it")
    return path
