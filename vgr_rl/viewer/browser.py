"""What the browser of samples on a page can show: sets of groups, and the pictures they refer to."""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vgr_rl.benchmarks.summary import Item, item, ordinal
from vgr_rl.viewer.pictures import Album
from vgr_rl.viewer.runs import SAMPLES, EvaluationRun, Group, TrainingRun
from vgr_rl.viewer.traces import Json, reward_weights, trace_group


@dataclass(frozen=True, slots=True)
class SampleSet:
    """Samples under one heading.

    Attributes:
        title: what the set is called.
        note: where its samples come from.
        sides: names of the models that are compared, () when there is only one.
        groups: as `trace_group` describes them.
    """

    title: str
    note: str
    groups: list[Json]
    sides: tuple[str, ...] = ()

    def as_json(self) -> Json:
        """Return the set as the page's script takes it."""
        return {"title": self.title, "note": self.note, "groups": self.groups, "sides": self.sides}


@dataclass(frozen=True, slots=True)
class Browser:
    """The sets, and the pictures of all of them."""

    album: Album
    sets: list[SampleSet] = field(default_factory=list)


def rollouts(run: TrainingRun, album: Album) -> list[SampleSet]:
    """Return the rollouts that a run logged while it trained, if it did."""
    if not run.groups:
        return []
    groups = [rollout_group(group, run.config, album) for group in run.groups]
    note = f"What the model wrote while it trained: {_prompts(run)}, with all its rollouts."
    return [SampleSet("Rollouts", note, groups)]


def rollout_group(rows: Group, config: Mapping[str, Any], album: Album) -> Json:
    """Describe the rollouts of one prompt of a training run."""
    weights = reward_weights(config, str(rows[0].get("data_source", "")))
    return trace_group(rollout_key(rows), rows, album, [weights] * len(rows))


def rollout_key(rows: Group) -> str:
    """Return what tells the rollouts of one prompt of a run from all others."""
    first = rows[0]
    return f"{first.get('split', '')}/{first.get('step', '')}/{first.get('group', first['id'])}"


def pairs(
    before: EvaluationRun, after: EvaluationRun, sides: tuple[str, str], album: Album, samples: int = SAMPLES
) -> list[SampleSet]:
    """Return items that two evaluations share, for each mode that both have; at most `samples` responses in all."""
    modes = [mode for mode in before.rows if mode in after.rows]
    sets = []
    for mode in modes:
        old, new = ({item(row): [row] for row in run.rows[mode]} for run in (before, after))
        note = f"The same items, {mode} decoding: {sides[0]} and {sides[1]} side by side."
        sets.append(_paired(mode.capitalize(), note, old, new, sides, album, ({}, {}), samples // (2 * len(modes))))
    return [found for found in sets if found.groups]


def same_prompts(before: TrainingRun, after: TrainingRun, sides: tuple[str, str], album: Album) -> list[SampleSet]:
    """Return the prompts that two training runs share; of a prompt that a run has met more than once, the last time."""
    sets = []
    thinned = "".join(
        f" Of {side}, {_prompts(run)} was read."
        for run, side in zip((before, after), sides, strict=True)
        if run.every > 1
    )
    for split in dict.fromkeys(group[0].get("split", "") for group in after.groups):
        old, new = (_last_met(run.groups, split) for run in (before, after))
        note = f"The prompts of split {split!r} that both runs met: {sides[0]} and {sides[1]} side by side.{thinned}"
        sets.append(
            _paired(str(split).capitalize(), note, old, new, sides, album, (before.config, after.config), len(new))
        )
    return [found for found in sets if found.groups]


def _prompts(run: TrainingRun) -> str:
    return f"every {ordinal(run.every)} prompt" if run.every > 1 else "every prompt"


def _last_met(groups: Iterable[Group], split: str) -> dict[Item, Group]:
    return {item(group[0]): group for group in groups if group[0].get("split", "") == split}


def _paired(
    title: str,
    note: str,
    before: Mapping[Item, Group],
    after: Mapping[Item, Group],
    sides: tuple[str, str],
    album: Album,
    configs: tuple[Mapping[str, Any], Mapping[str, Any]],
    limit: int,
) -> SampleSet:
    """Return up to `limit` of the items that both have, drawn by lot with a fixed seed."""
    shared = [key for key in before if key in after]
    groups = []
    for key in random.Random(0).sample(shared, min(len(shared), max(1, limit))):
        rows = [*before[key], *after[key]]
        of_side = [0] * len(before[key]) + [1] * len(after[key])
        source, row_id = key
        weights = [reward_weights(config, source) for config in configs]
        groups.append(trace_group(f"{source}/{row_id}", rows, album, [weights[side] for side in of_side], of_side))
    drawn = f" {len(groups)} of {len(shared)}, drawn by lot." if len(groups) < len(shared) else ""
    return SampleSet(title, note + drawn, groups, sides)
