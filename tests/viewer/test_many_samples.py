"""10,000 responses on one page: how large it is, how long it takes, how much of it is in the document."""

import logging
import random
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from vgr_rl.report import write_report
from vgr_rl.tiny.world import generate

pytestmark = pytest.mark.slow

log = logging.getLogger(__name__)

_GROUP, _PROMPTS, _PICTURES = 8, 1250, 250


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory, runs: ModuleType) -> Path:
    rng, root = random.Random(0), tmp_path_factory.mktemp("many")
    scenes = list(generate("train", _PICTURES, 0))
    groups = [[runs.row_of(scene, rng, 6, 0.6) for _ in range(_GROUP)] for scene in scenes]
    rows = []
    for prompt in range(_PROMPTS):
        rollouts = groups[prompt % _PICTURES]
        common = {"step": 1 + prompt // 25, "split": "train", "group": f"prompt{prompt}"}
        rows += [
            {**row, **common, "rollout": number, "advantage": rng.gauss(0, 1)} for number, row in enumerate(rollouts)
        ]
    runs.write_grpo(root, steps=50, rollouts=rows)
    return write_report(root)


def test_ten_thousand_responses_open_and_filter_in_seconds(page_file: Path, visit: Callable[..., Any]) -> None:
    assert page_file.read_text().count("data-kind=") == _PICTURES  # each picture once
    megabytes = page_file.stat().st_size / 1e6
    start = time.monotonic()
    page = visit(page_file)
    page.wait_for_selector("#detail .panel img")
    seconds = time.monotonic() - start
    assert page.locator("#count").inner_text() == "1,250 prompts, 10,000 responses"
    elements = page.evaluate("document.querySelectorAll('#samples *').length")
    start = time.monotonic()
    page.get_by_label("Search").fill("red square wrong-word-that-nobody-wrote")
    page.get_by_text("No sample passes these filters.").wait_for()
    page.get_by_label("Search").fill("red square")
    page.locator("#count", has_text="of 1,250").wait_for()
    searched = time.monotonic() - start
    page.locator("#list").evaluate("list => { list.scrollTop = 1e6; }")
    log.info("%.1f MB, open after %.1f s, two searches %.1f s, %d elements", megabytes, seconds, searched, elements)
    assert megabytes < 4
    assert elements < 900
    assert seconds < 10 and searched < 10  # a second each where nothing else runs


def test_only_rows_in_view_are_in_the_document(page_file: Path, visit: Callable[..., Any]) -> None:
    page = visit(page_file, reduced_motion="reduce")  # else the page is still scrolling when it is measured
    page.wait_for_selector("#detail .panel img")
    assert page.locator("#list .row").count() < 40
    page.locator("#list").focus()
    page.keyboard.press("End")
    page.locator("#position", has_text="1,250 / 1,250").wait_for()
    last = page.locator("#row-1249")
    assert last.get_attribute("aria-posinset") == "1250" and page.locator("#list .row").count() < 40
    box, frame = last.bounding_box(), page.locator("#list").bounding_box()
    assert frame["y"] - 1 <= box["y"] and box["y"] + box["height"] <= frame["y"] + frame["height"] + 1
