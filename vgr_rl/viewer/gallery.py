"""Which samples a report shows, by a rule that the page states."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vgr_rl.viewer.cards import Card, card
from vgr_rl.viewer.runs import EvaluationRun, TrainingRun

_RANDOM, _EXTREME, _GROUPS = 12, 6, 12


@dataclass(frozen=True, slots=True)
class Shelf:
    """Cards under one heading; `rule` says how they were chosen."""

    key: str
    title: str
    rule: str
    cards: tuple[Card, ...]


def before_and_after(before: EvaluationRun, after: EvaluationRun, mode: str, seed: int = 0) -> list[Shelf]:
    """Return held-out items with both models' responses: some at random, the largest gains, the largest losses."""
    old = {row["id"]: row for row in before.rows[mode]}
    pairs = [(old[row["id"]], row) for row in after.rows[mode] if row["id"] in old]
    scored = [pair for pair in pairs if pair[0]["score"] is not None and pair[1]["score"] is not None]
    by_change = sorted(scored, key=lambda pair: pair[1]["score"] - pair[0]["score"])
    gains = [pair for pair in reversed(by_change[-_EXTREME:]) if _change(pair) > 0]
    losses = [pair for pair in by_change[:_EXTREME] if _change(pair) < 0]
    picked = random.Random(seed).sample(pairs, min(_RANDOM, len(pairs)))
    shelves = (
        ("random", "At random", f"{len(picked)} of {len(pairs)} items, drawn with a fixed seed.", picked),
        ("gains", "Largest gains", "The items whose reward rose most.", gains),
        ("losses", "Largest losses", "The items whose reward fell most.", losses),
    )
    titles = ("Cold start", "After GRPO")
    return [Shelf(key, title, rule, tuple(card(p, titles) for p in chosen)) for key, title, rule, chosen in shelves]


def _change(pair: tuple[Mapping[str, Any], Mapping[str, Any]]) -> float:
    return pair[1]["score"] - pair[0]["score"]


def rollout_groups(run: TrainingRun, per_group: int = 4) -> list[Shelf]:
    """Return the first groups of the last step, each with its first rollouts side by side."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in run.rollouts:
        groups.setdefault((str(row.get("split", "")), str(row.get("group", row["id"]))), []).append(row)
    chosen = list(groups.values())[:_GROUPS]
    if not chosen:
        return []
    cards = tuple(card(group[:per_group], _rollout_titles(group[:per_group])) for group in chosen)
    step = run.rollouts[0].get("step", run.last_step)
    rule = f"The first {len(cards)} of {len(groups)} prompts, up to {per_group} rollouts each, as sampled."
    return [Shelf("rollouts", f"Rollouts of step {step}", rule, cards)]


def _rollout_titles(group: Sequence[Mapping[str, Any]]) -> list[str]:
    return [f"Rollout {row.get('rollout', index)}" for index, row in enumerate(group)]
