"""The filters of the page, in a browser: who is listed, and what of the prompt that is open."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from vgr_rl.report import write_comparison, write_report
from vgr_rl.tiny.world import generate

pytestmark = pytest.mark.slow

Visit = Callable[..., Any]


def edited(path: Path, *changes: Callable[[dict[str, Any]], Any]) -> None:
    """Change the rows of a file, the first with the first change and so on; the last change goes for the rest."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for index, row in enumerate(rows):
        changes[min(index, len(changes) - 1)](row)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def right(row: dict[str, Any]) -> None:
    row["parts"]["accuracy"] = 1.0


def wrong(row: dict[str, Any]) -> None:
    row["parts"]["accuracy"] = 0.0


def failed(row: dict[str, Any]) -> None:
    del row["parts"]["accuracy"]


def test_what_is_not_graded_became_neither_right_nor_wrong(tmp_path: Path, runs: ModuleType, visit: Visit) -> None:
    scenes = list(generate("heldout", 4, 0))
    for name, answers in (("before", (right, right, failed, wrong)), ("after", (wrong, failed, right, right))):
        runs.write_evaluation(tmp_path / name, scenes, slip_px=2, right=1.0)
        for mode in ("greedy", "sampled"):
            edited(tmp_path / name / f"{mode}.jsonl", *answers)
    page = visit(write_comparison(tmp_path / "before", tmp_path / "after"))
    for outcome, place in (("became wrong", 0), ("became right", 3)):
        page.locator("#filters").get_by_label("Answer").select_option(outcome)
        page.locator("#detail .meta", has_text=f"tiny-heldout-0-{place}").wait_for()
        assert page.locator("#count").inner_text().startswith("1 prompt of 4")


def test_the_open_prompt_shows_which_of_its_responses_pass(tmp_path: Path, runs: ModuleType, visit: Visit) -> None:
    runs.write_grpo(tmp_path, steps=3)
    edited(tmp_path / "samples.jsonl", right, wrong, right, wrong, right)
    page = visit(write_report(tmp_path))
    page.locator("#filters").get_by_label("Order").select_option("oldest first")
    page.locator("#list .row[aria-selected=true] .dots .wrong").first.wait_for()
    cards, heading = page.locator(".strip .rollout"), page.locator("#detail .panel h4")
    for outcome, first, dimmed in (("wrong", 1, [0, 2]), ("right", 0, [1, 3])):
        page.locator("#filters").get_by_label("Answer").select_option(outcome)
        page.locator("#detail .panel h4", has_text=f"Rollout {first}").wait_for()
        shown = [index for index, card in enumerate(cards.all()) if "dimmed" in card.get_attribute("class").split()]
        assert shown == dimmed
    cards.nth(3).click()  # what does not pass can still be looked at
    assert heading.inner_text().startswith("Rollout 3")
    page.get_by_role("button", name="Clear").click()
    page.locator(".strip .dimmed").first.wait_for(state="detached")
    assert heading.inner_text().startswith("Rollout 3")
