import json
import logging
from pathlib import Path

import numpy as np
import pytest

from vgr_rl.training.console import Console, row
from vgr_rl.training.run_log import EVENTS, METRICS, SAMPLES, RunLog


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_metrics_hold_numbers_only_and_no_nan(tmp_path: Path) -> None:
    RunLog(tmp_path).log({"a": np.float32(1.5), "b": float("nan"), "c": "text", "d": 2}, step=1)
    assert read(tmp_path / METRICS) == [{"step": 1, "data": {"a": 1.5, "b": None, "d": 2.0}}]


def test_a_resumed_run_forgets_what_it_will_do_again(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    for step in (1, 2, 3):
        log.log({"x": step}, step)
        log.samples([json.dumps({"step": step, "id": "s"})])
    log.forget_after(2)
    assert [line["step"] for line in read(tmp_path / METRICS)] == [1, 2]
    assert [line["step"] for line in read(tmp_path / SAMPLES)] == [1, 2]


def test_text_with_other_line_breaks_and_a_line_that_was_cut_off_are_no_trouble(tmp_path: Path) -> None:
    log, text = RunLog(tmp_path), "a\u2028b\u0085c"
    log.samples([json.dumps({"step": step, "response": text}, ensure_ascii=False) for step in (1, 2)])
    with (tmp_path / SAMPLES).open("ab") as file:
        file.write('{"step": 3, "response": "é'.encode()[:-1])
    log.forget_after(1)
    assert (tmp_path / SAMPLES).read_text() == f'{{"step": 1, "response": "{text}"}}\n'


def test_the_console_shows_steps_and_events_and_remembers_the_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = RunLog(tmp_path)
    log.event("from an earlier run")
    with caplog.at_level(logging.INFO):
        console = Console(tmp_path, total_steps=9, poll_s=0.01).start()
        log.log({"reward/score/mean": 1.25, "timing_s/step": 3.0}, 7)
        log.event("nothing to learn from", "warning")
        log.event("policy worker 0 hangs", "error")
        console.stop()
    text = [record.getMessage() for record in caplog.records]
    assert text == [
        row(7, 9, {"reward/score/mean": 1.25, "timing_s/step": 3.0}),
        "warning: nothing to learn from",
        "error: policy worker 0 hangs",
    ]
    assert console.first_error == "policy worker 0 hangs"


def test_a_step_names_its_numbers_and_says_how_long_it_will_take() -> None:
    assert row(10, 100, {}) == "step  10/100"
    assert row(99, 100, {"timing_s/step": 65.4}) == "step  99/100  65.4 s, 1:05 left"
    assert (
        row(1, 9, {"reward/score/mean": 2.0, "evidence/boxes_per_response": 1.5})
        == "step 1/9  reward 2.000  boxes 1.50"
    )


def test_events_are_appended_across_runs(tmp_path: Path) -> None:
    RunLog(tmp_path).event("one")
    RunLog(tmp_path).event("two", "error")
    assert [(event["level"], event["message"]) for event in read(tmp_path / EVENTS)] == [
        ("info", "one"),
        ("error", "two"),
    ]
