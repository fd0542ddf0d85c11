"""Every metric of recorded runs is explained, and the panels show metrics that exist."""

import json
import re
from itertools import chain, product
from pathlib import Path

import pytest

from vgr_rl.monitoring.dashboard import DASHBOARD, Panel, shows, wandb_regex
from vgr_rl.monitoring.metric_names import LIMITS, METRICS, meaning

REAL = Path(__file__).parents[1] / "diagnosis" / "real"
PANELS = [panel for panels in DASHBOARD.values() for panel in panels]
EXAMPLES = [
    *("reward/dual_iou/mean", "reward/score/std", "reward_term/format/zero_rate", "reward/accuracy/failed_rate"),
    *("judge/latency_s/p95", "judge/right_rate", "judge/failure_rate", "val-core/tiny_world/reward/mean@1"),
    *("val-aux/tiny_world/recall_iou/mean@4", "timing_s/pictures", "timing_s/gen", "perf/throughput", "actor/kl_loss"),
    *("actor/perf/max_memory_allocated_gb", "timing_s/step", "train/loss", "response/length/max"),
]


@pytest.mark.parametrize("run", sorted(REAL.iterdir()))
def test_the_metrics_of_a_real_run_are_documented(run: Path) -> None:
    names = {name for line in (run / "metrics.jsonl").read_text().splitlines() for name in json.loads(line)["data"]}
    assert names and [name for name in sorted(names) if meaning(name) is None] == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_names_with_parts_are_found(name: str) -> None:
    assert meaning(name)


@pytest.mark.parametrize("name", ["reward/score", "reward/a/b/mean", "timing_s/new_stage", "judge", "loss", ""])
def test_a_new_name_is_not_taken_for_an_old_one(name: str) -> None:
    assert meaning(name) is None


def test_the_limits_are_those_of_metrics_that_exist() -> None:
    assert LIMITS and all(name in METRICS["Evidence"] for name in LIMITS)


def documented() -> list[str]:
    """Return every documented metric, each word that stands for something filled in."""
    names = []
    for pattern in chain.from_iterable(METRICS.values()):
        filled = re.sub(r"<\w+>", lambda word: "accuracy" if word[0] == "<part>" else "word", pattern)
        choices = [part.split(",") for part in re.split(r"[{}]", filled)]
        names += ["".join(parts) for parts in product(*choices)]
    return names


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
def test_every_line_of_a_panel_is_a_documented_metric(panel: Panel) -> None:
    names = documented()
    for expression in panel.metrics:
        found = [name for name in names if re.fullmatch(expression, name)]
        assert found and all(shows(panel, name) for name in found)


def test_a_line_that_nothing_logs_is_found_out() -> None:
    names = documented()
    assert len(names) > 100 and all(meaning(name) for name in names)
    assert not any(shows(Panel("Gone", ("judge/wrong_rate",), ""), name) for name in names)


def test_the_page_has_every_panel_with_its_expression() -> None:
    page = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text()
    for section, panels in DASHBOARD.items():
        for panel in panels:
            expression = wandb_regex(panel).replace("|", r"\|")
            assert f"\n| {section} | {panel.title} | {panel.question} | `{expression}` |\n" in page
