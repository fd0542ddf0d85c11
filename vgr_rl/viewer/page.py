"""Put the pieces of a report together and render them."""

import base64
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from vgr_rl.viewer.charts import GRPO_CHARTS, HEIGHT, SFT_CHARTS, WIDTH, Chart, charts
from vgr_rl.viewer.comparison import Table, comparison
from vgr_rl.viewer.gallery import Shelf, before_and_after, rollout_groups
from vgr_rl.viewer.runs import DemoRun, TrainingRun, setting

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True, slots=True)
class Curves:
    """The charts of one stage."""

    title: str
    charts: tuple[Chart, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """Everything a page shows."""

    title: str
    lead: str
    facts: tuple[tuple[str, str], ...]
    tables: tuple[Table, ...] = ()
    curves: tuple[Curves, ...] = ()
    shelves: tuple[Shelf, ...] = ()
    gallery_note: str = ""
    seconds: dict[str, float] = field(default_factory=dict)


def demo_report(run: DemoRun) -> Report:
    """Describe the demo: what was run, what came out, what it looks like.

    Raises:
        ValueError: when the two evaluations cannot be compared.
    """
    tables = comparison(run.evaluations["cold_start"], run.evaluations["grpo"])
    mode = tables[0].mode
    lead = (
        "A small vision-language model was first fine-tuned on imperfect example traces (the cold start), then trained "
        "by reinforcement learning (GRPO): it answers each question several times, and answers that are right, well "
        "formed and point at the right places are reinforced. Both models then answered the same "
        f"{tables[0].n} questions that neither had seen."
    )
    curves = (
        Curves("GRPO, step by step", tuple(charts(GRPO_CHARTS, run.grpo.metrics))),
        Curves("Cold start, step by step", tuple(charts(SFT_CHARTS, run.sft.metrics))),
    )
    return Report(
        title="Cold start against GRPO",
        lead=lead,
        facts=_facts(run.grpo, run.sft),
        tables=tuple(tables),
        curves=tuple(c for c in curves if c.charts),
        shelves=tuple(before_and_after(run.evaluations["cold_start"], run.evaluations["grpo"], mode)),
        gallery_note=f"Held-out items, {mode} decoding: the cold start and the model after GRPO side by side.",
        seconds=run.seconds,
    )


def training_report(run: TrainingRun) -> Report:
    """Describe one run directory.

    Raises:
        ValueError: when its metrics hold nothing that a chart knows.
    """
    drawn = tuple(charts(GRPO_CHARTS, run.metrics)) + tuple(charts(SFT_CHARTS, run.metrics))
    if not drawn:
        raise ValueError(
            f"{run.path / 'metrics.jsonl'} holds none of the metrics that a report shows; is it a run of "
            "`python -m vgr_rl.main` or `python -m vgr_rl.sft`?"
        )
    shelves = tuple(rollout_groups(run))
    return Report(
        title=f"Run {run.path.resolve().name}",
        lead=f"{run.last_step} steps, from {run.path}.",
        facts=_facts(run),
        curves=(Curves("Step by step", drawn),),
        shelves=shelves,
        gallery_note="What the model wrote while it trained, with the reward and the advantage of each rollout.",
    )


def render(report: Report) -> str:
    """Return the page: one HTML document without scripts or pictures from elsewhere."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    script = (_TEMPLATES / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    template = environment.get_template("page.html")
    return template.render(
        report=report,
        style=(_TEMPLATES / "style.css").read_text(encoding="utf-8"),
        script=script,
        script_hash=digest,
        chart_width=WIDTH,
        chart_height=HEIGHT,
        total_seconds=sum(report.seconds.values()),
    )


def _facts(run: TrainingRun, sft: TrainingRun | None = None) -> tuple[tuple[str, str], ...]:
    config = run.config
    prompts = setting(config, "data.train_batch_size")
    group = setting(config, "actor_rollout_ref.rollout.n")
    found: list[tuple[str, Any]] = [
        ("Starts from", _name(setting(config, "model.path", "actor_rollout_ref.model.path"))),
        ("Cold start", f"{sft.last_step} steps" if sft else None),
        ("GRPO" if sft else "Steps", f"{run.last_step} steps" if sft else run.last_step),
        ("Each step", f"{prompts} prompts × {group} rollouts" if prompts and group else None),
        ("Learning rate", setting(config, "actor_rollout_ref.actor.optim.lr", "optim.lr")),
        ("Seed", setting(config, "trainer.seed", "data.seed", "seed")),
    ]
    return tuple((label, str(value)) for label, value in found if value is not None)


def _name(path: Any) -> str | None:
    return None if path is None else "/".join(Path(str(path)).parts[-2:])
