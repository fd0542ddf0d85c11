"""What a page shows of a run, of the demo, and of two runs beside each other."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vgr_rl.viewer.browser import Browser, pairs, rollouts, same_prompts
from vgr_rl.viewer.charts import SFT_CHARTS, Chart, charts, compared_charts, run_specs
from vgr_rl.viewer.comparison import Table, comparison, start_and_end
from vgr_rl.viewer.pictures import Album
from vgr_rl.viewer.runs import SAMPLES, DemoRun, EvaluationRun, Series, TrainingRun, setting


@dataclass(frozen=True, slots=True)
class Curves:
    """The charts of one stage, and the table of its start and end."""

    title: str
    charts: tuple[Chart, ...]
    table: Table | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """Everything a page shows."""

    title: str
    lead: str
    facts: tuple[tuple[str, str], ...]
    browser: Browser
    sides: tuple[str, str] = ("", "")
    tables: tuple[Table, ...] = ()
    curves: tuple[Curves, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    live: str = ""
    """The id of the server that fills the page; "" for a page that holds everything."""


def demo_report(run: DemoRun, album: Album, samples: int = SAMPLES) -> Report:
    """Describe the demo: what was run, what came out, what it looks like.

    Raises:
        ValueError: when the two evaluations cannot be compared.
    """
    before, after = run.evaluations["cold_start"], run.evaluations["grpo"]
    tables = comparison(before, after)
    lead = (
        "A small vision-language model was first fine-tuned on imperfect example traces (the cold start), then trained "
        "by reinforcement learning (GRPO): it answers each question several times, and answers that are right, well "
        "formed and point at the right places are reinforced. Both models then answered the same "
        f"{tables[0].n} questions that neither had seen."
    )
    curves = (
        Curves("GRPO, step by step", tuple(charts(run_specs(run.grpo.metrics), run.grpo.metrics))),
        Curves("Cold start, step by step", tuple(charts(SFT_CHARTS, run.sft.metrics))),
    )
    sides = ("Cold start", "GRPO")
    return Report(
        title="Cold start against GRPO",
        lead=lead,
        facts=_facts(run.grpo, run.sft),
        browser=Browser(album, [*pairs(before, after, sides, album, samples), *rollouts(run.grpo, album)]),
        sides=sides,
        tables=tuple(tables),
        curves=tuple(c for c in curves if c.charts),
        seconds=run.seconds,
    )


def training_report(run: TrainingRun, album: Album) -> Report:
    """Describe one run directory.

    Raises:
        ValueError: when its metrics hold nothing that a chart knows.
    """
    drawn = curves_of(run.metrics)
    if not drawn:
        raise ValueError(
            f"{run.path / 'metrics.jsonl'} holds none of the metrics that a report shows; is it a run of "
            "`python -m vgr_rl.main` or `python -m vgr_rl.sft`?"
        )
    return Report(
        title=f"Run {_name(run.path.resolve())}",
        lead=f"{run.last_step} steps, from {run.path}.",
        facts=_facts(run),
        browser=Browser(album, rollouts(run, album)),
        curves=drawn,
    )


def compared_report(
    before: EvaluationRun | TrainingRun, after: EvaluationRun | TrainingRun, album: Album, samples: int = SAMPLES
) -> Report:
    """Describe two evaluations, or two training runs, by what they have in common.

    Raises:
        ValueError: when they are not of one kind, or have nothing in common.
    """
    sides = _distinct_names(before.path.resolve(), after.path.resolve())
    tables: list[Table] = []
    curves: tuple[Curves, ...] = ()
    if isinstance(before, EvaluationRun) and isinstance(after, EvaluationRun):
        tables = comparison(before, after)
        sets = pairs(before, after, sides, album, samples)
    elif isinstance(before, TrainingRun) and isinstance(after, TrainingRun):
        drawn = tuple(compared_charts(before.metrics, after.metrics, sides))
        curves = (Curves("Step by step", drawn),) if drawn else ()
        sets = same_prompts(before, after, sides, album)
    else:
        raise ValueError(f"{before.path} and {after.path}: one is an evaluation and the other a training run")
    if not sets and not curves:
        raise ValueError(f"{before.path} and {after.path} have no item and no metric in common")
    return Report(
        title=f"{sides[0]} against {sides[1]}",
        lead="The same items before and after." if sets else "Both runs on the same axes; they share no prompt.",
        facts=(("Before", str(before.path)), ("After", str(after.path))),
        browser=Browser(album, sets),
        sides=sides,
        tables=tuple(tables),
        curves=curves,
    )


def live_report(path: Path, config: dict[str, Any], album: Album, server: str) -> Report:
    """Describe a run directory that a server follows: what it holds comes later."""
    facts = tuple(fact for fact in _facts(TrainingRun(path, config, {})) if fact[0] != "Steps")
    lead = f"Followed as it goes on, from {path}."
    return Report(f"Run {_name(path.resolve())}", lead, facts, Browser(album), live=server)


def curves_of(metrics: Mapping[str, Series]) -> tuple[Curves, ...]:
    """Return the charts of one run, if it has any."""
    drawn = tuple(charts(run_specs(metrics), metrics))
    return (Curves("", drawn, start_and_end(metrics)),) if drawn else ()


def _facts(run: TrainingRun, sft: TrainingRun | None = None) -> tuple[tuple[str, str], ...]:
    config = run.config
    prompts = setting(config, "data.train_batch_size")
    group = setting(config, "actor_rollout_ref.rollout.n")
    found: list[tuple[str, Any]] = [
        ("Starts from", _model_name(setting(config, "model.path", "actor_rollout_ref.model.path"))),
        ("Cold start", f"{sft.last_step} steps" if sft else None),
        ("GRPO" if sft else "Steps", f"{run.last_step} steps" if sft else run.last_step),
        ("Each step", f"{prompts} prompts × {group} rollouts" if prompts and group else None),
        ("Learning rate", setting(config, "actor_rollout_ref.actor.optim.lr", "optim.lr")),
        ("Seed", setting(config, "trainer.seed", "data.seed", "seed")),
    ]
    return tuple((label, str(value)) for label, value in found if value is not None)


def _model_name(path: Any) -> str | None:
    return None if path is None else _name(Path(str(path)))


def _distinct_names(before: Path, after: Path) -> tuple[str, str]:
    """Return what tells two paths apart: their parts without those that both begin or end with."""
    old, new = list(before.parts), list(after.parts)
    for end in (0, -1):
        while len(old) > 1 and len(new) > 1 and old[end] == new[end]:
            del old[end], new[end]
    return "/".join(old), "/".join(new)


def _name(path: Path) -> str:
    return "/".join(path.parts[-2:])
