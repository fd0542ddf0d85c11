"""The panels in which a run is watched: as code for TensorBoard, as a table in docs/monitoring.md for wandb."""

import re
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart.

    Attributes:
        title: what it shows.
        metrics: the lines in it, as regular expressions of whole names.
        question: what it answers.
    """

    title: str
    metrics: tuple[str, ...]
    question: str


DASHBOARD: dict[str, tuple[Panel, ...]] = {
    "Learning": (
        Panel("Score", ("reward/score/mean",), "Does the reward rise?"),
        Panel("Parts", ("reward/(accuracy|format|dual_iou|recall_iou|precision_iou)/mean",), "Which part of it rises?"),
        Panel("Validation", ("val-core/.*",), "Does it rise on items that are not trained on?"),
        Panel("Dead terms", ("reward_term/.*/zero_rate",), "Does a term never pay (1.0)?"),
        Panel("Flat groups", ("group/zero_variance_rate",), "Do groups differ, so that there is something to learn?"),
    ),
    "Evidence": (
        Panel("Boxes a response", ("evidence/boxes_per_response",), "Are boxes enumerated, or given up?"),
        Panel("Recall without precision", ("evidence/recall_without_precision",), "Is recall bought with wrong boxes?"),
        Panel("Signs of hacking", ("evidence/.*_rate",), "Copies, whole images, boxes nobody refers to?"),
        Panel("Length", ("response/length/(mean|max)",), "Do responses grow?"),
        Panel("Cut responses", ("response/truncated_rate",), "Do they end at the limit?"),
    ),
    "Trust": (
        Panel("Rollouts match the policy", ("training/rollout_actor_probs_pearson_corr",), "Is it above 0.99?"),
        Panel("Rewards fail", ("reward/failure_rate", "judge/failure_rate"), "Is everything graded?"),
        Panel("Judge says right", ("judge/right_rate",), "Does the judge tell answers apart?"),
        Panel("Entropy", ("actor/entropy",), "Does the policy collapse?"),
        Panel("Gradient", ("actor/grad_norm",), "Is it steady?"),
        Panel("Divergence", ("actor/ppo_kl", "actor/kl_loss"), "Are the updates small?"),
    ),
    "Speed": (
        Panel("Stages", ("timing_s/(gen|update_actor|ref|old_log_prob|update_weights)",), "Where does the step go?"),
        Panel("Step", ("timing_s/step", "timing_s/pictures"), "How long is it?"),
        Panel("Throughput", ("perf/throughput",), "How many tokens a second and worker?"),
        Panel("Memory", ("actor/perf/.*",), "Does it grow?"),
    ),
}
"""Panels by section."""


def tensorboard_layout() -> dict[str, dict[str, list[Any]]]:
    """Return the panels as `SummaryWriter.add_custom_scalars` takes them."""
    return {
        section: {panel.title: ["Multiline", [f"^{metric}$" for metric in panel.metrics]] for panel in panels}
        for section, panels in DASHBOARD.items()
    }


def add_tensorboard_layout(writer: Any) -> None:
    """Write the panels into a run of TensorBoard, where they are the tab "Custom Scalars"."""
    writer.add_custom_scalars(tensorboard_layout())


def wandb_regex(panel: Panel) -> str:
    """Return what selects the lines of a panel in wandb: a line plot's metrics by regular expression."""
    return "^" + "|".join(panel.metrics) + "$" if len(panel.metrics) == 1 else f"^({'|'.join(panel.metrics)})$"


def shows(panel: Panel, metric: str) -> bool:
    """Return whether a metric is a line in a panel."""
    return re.fullmatch(wandb_regex(panel), metric) is not None
