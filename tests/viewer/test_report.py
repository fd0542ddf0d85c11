import base64
import gzip
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from vgr_rl.benchmarks.summary import MEASURES, compare
from vgr_rl.report import main, write_comparison, write_report
from vgr_rl.tiny.world import generate
from vgr_rl.viewer.comparison import comparison
from vgr_rl.viewer.runs import read_demo, read_training

_VOID = {"meta", "link", "img", "br", "input", "hr"}
_EVIL = "</p></script><script>alert(1)</script><img src=x onerror=alert(1)>\"'><svg/onload=alert(1)>{{ 7*7 }}&amp;"


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails on tags that do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["script"], ["style"]):
            self.text.append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def sets_of(page: Path) -> list[dict[str, Any]]:
    """The samples that a page holds."""
    (packed,) = re.findall(r'<script id="packed"[^>]*>([^<]*)</script>', page.read_text())
    sets: list[dict[str, Any]] = json.loads(gzip.decompress(base64.b64decode(packed)))
    return sets


def rows_of(path: Path) -> dict[str, Any]:
    rows = map(json.loads, path.read_text().splitlines())
    return {row["id"]: row for row in rows}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, runs: ModuleType) -> Path:
    root = runs.write_demo(tmp_path_factory.mktemp("demo"), items=40)
    write_report(root)
    return root


def test_the_demo_page_nests_and_holds_pictures_charts_and_tables(demo: Path):
    page = Page((demo / "report.html").read_text())
    assert page.count("table") == 2
    assert sum("data-chart" in attrs for tag, attrs in page.tags if tag == "svg") >= 12
    assert sum("data-kind" in attrs for tag, attrs in page.tags if tag == "script") == 40 + 6
    titles = {each["title"]: len(each["groups"]) for each in sets_of(demo / "report.html")}
    assert titles == {"Greedy": 40, "Sampled": 40, "Rollouts": 6}


def test_a_comparison_holds_both_answers_to_each_item(demo: Path):
    greedy = sets_of(demo / "report.html")[0]
    assert greedy["sides"] == ["Cold start", "GRPO"]
    rows = {name: rows_of(demo / "eval" / name / "greedy.jsonl") for name in ("cold_start", "grpo")}
    for group in greedy["groups"]:
        for rollout, name in zip(group["rollouts"], ("cold_start", "grpo"), strict=True):
            row = rows[name][group["id"]]
            assert "".join(piece[0] for piece in rollout["pieces"]) == row["response"]
            assert rollout["score"] == pytest.approx(row["score"], abs=1e-4)


def test_rollouts_beyond_the_limit_are_spaced_evenly(tmp_path: Path, runs: ModuleType):
    run = runs.write_grpo(tmp_path, steps=12)
    (everything,) = sets_of(write_report(run))
    assert "every prompt" in everything["note"]
    (some,) = sets_of(write_report(run, samples=12))
    assert [group["key"] for group in some["groups"]] == [group["key"] for group in everything["groups"]][::2]
    assert "every 2nd prompt" in some["note"]
    assert all(len(group["rollouts"]) == 4 for group in some["groups"])


def test_the_page_needs_nothing_from_elsewhere(demo: Path):
    html = (demo / "report.html").read_text()
    page = Page(html)
    for tag, attributes in page.tags:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:image/")), f"<{tag} {name}={value[:60]}>"
    assert not re.search(r"https?://|url\(|@import", html.replace("http://www.w3.org/2000/svg", ""))


def test_the_summary_is_what_was_measured(demo: Path):
    summary = json.loads((demo / "summary.json").read_text())
    assert set(summary) == {"cold_start", "grpo", "seconds"}
    assert summary["seconds"]["grpo"] == 505.2
    for name in ("cold_start", "grpo"):
        assert summary[name] == json.loads((demo / "eval" / name / "summary.json").read_text())
        for mode in ("greedy", "sampled"):
            assert set(summary[name][mode]) == {*MEASURES, "n", "stderr"} and summary[name][mode]["n"] == 40


def test_the_table_shows_the_numbers_of_the_summary(demo: Path):
    run = read_demo(demo)
    before, after = run.evaluations["cold_start"], run.evaluations["grpo"]
    shown = " ".join(" ".join(Page((demo / "report.html").read_text()).text).split())
    for table in comparison(before, after):
        changes = compare(before.rows[table.mode], after.rows[table.mode])
        assert table.n == 40 and len(table.rows) == len(MEASURES)
        for name, row in zip(MEASURES, table.rows, strict=True):
            for cell, evaluation in ((row.before, before), (row.after, after)):
                expected = evaluation.summary[table.mode]
                assert float(cell.mean) == pytest.approx(expected[name], abs=0.051 if expected[name] >= 10 else 5.1e-4)
                assert float(cell.error) == pytest.approx(expected["stderr"][name], abs=5.1e-4)
            assert float(row.difference.mean.replace("−", "-")) == pytest.approx(changes[name].mean, abs=5.1e-4)
            cells = (row.before, row.after, row.difference)
            assert f"{row.label} {' '.join(f'{cell.mean} ± {cell.error}' for cell in cells)}" in shown


def test_text_of_models_and_data_cannot_become_markup(tmp_path: Path, runs: ModuleType):
    runs.write_demo(tmp_path, items=4)
    for name in ("cold_start", "grpo"):
        path = tmp_path / "eval" / name / "greedy.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            row["response"] = f"{_EVIL}<box>[1,2,30,40]</box><answer>{_EVIL}</answer>"
            row["question"] = row["data_source"] = row["answer"] = _EVIL
            row["options"], row["image"] = [_EVIL, _EVIL], {"path": _EVIL}
            row["parts"][_EVIL] = 1.0
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    clean = runs.write_demo(tmp_path / "clean", items=4)
    evil_page, clean_page = (Page(write_report(root).read_text()) for root in (tmp_path, clean))
    assert {tag for tag, _ in evil_page.tags} == {tag for tag, _ in clean_page.tags}
    assert not any(name.startswith("on") for _, attributes in evil_page.tags for name in attributes)
    assert "<img src=x" not in (tmp_path / "report.html").read_text()
    told = json.dumps(sets_of(tmp_path / "report.html"))
    assert "onerror=alert(1)" in told and "{{ 7*7 }}" in told


def test_the_page_allows_no_script_but_its_own(demo: Path):
    page = Page((demo / "report.html").read_text())
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy and "default-src 'none'" in policy and re.search(r"script-src 'sha256-[\w+/=]{44}'$", policy)


@pytest.mark.parametrize(
    ("missing", "command"),
    [
        ("sft/metrics.jsonl", "python -m vgr_rl.sft"),
        ("grpo/metrics.jsonl", "python -m vgr_rl.main"),
        ("eval/cold_start/summary.json", "python -m vgr_rl.evaluate"),
        ("eval/grpo/sampled.jsonl", "python -m vgr_rl.evaluate"),
    ],
)
def test_a_missing_piece_is_named_with_the_command_that_makes_it(
    tmp_path: Path, missing: str, command: str, runs: ModuleType
):
    runs.write_demo(tmp_path, items=4)
    (tmp_path / missing).unlink()
    with pytest.raises(ValueError, match=f"{re.escape(missing)} is missing; make it with `{command}"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="neither metrics.jsonl"):
        write_report(tmp_path)
    assert main([str(tmp_path / "nowhere")]) == 2


def test_reports_of_single_runs(tmp_path: Path, runs: ModuleType):
    runs.write_grpo(tmp_path / "grpo", steps=12)
    runs.write_sft(tmp_path / "sft", steps=60)
    assert main([str(tmp_path / "grpo")]) == 0 and main([str(tmp_path / "sft")]) == 0
    grpo = Page((tmp_path / "grpo" / "report.html").read_text())
    assert grpo.count("figure") == 11
    assert [len(each["groups"]) for each in sets_of(tmp_path / "grpo" / "report.html")] == [6]
    assert Page((tmp_path / "sft" / "report.html").read_text()).count("figure") == 4


def test_a_line_without_what_it_needs_is_named(tmp_path: Path, runs: ModuleType):
    runs.write_grpo(tmp_path, steps=3)
    with (tmp_path / "samples.jsonl").open("a") as file:
        file.write('{"step": 3, "text": "of another program"}\n')
    with pytest.raises(ValueError, match=r"samples.jsonl line 25 needs boxes_orig_px, id"):
        write_report(tmp_path)


def test_metrics_of_a_resumed_and_still_running_run(tmp_path: Path):
    lines = [{"step": 1, "data": {"train/loss": 3.0}}, {"step": 2, "data": {"train/loss": 2.0, "val/loss": None}}]
    lines += [{"step": 2, "data": {"train/loss": 1.5}}]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"step": 3, "da'
    (tmp_path / "metrics.jsonl").write_text(text)
    assert read_training(tmp_path).metrics == {"train/loss": [(1, 3.0), (2, 1.5)]}


def test_a_line_that_a_kill_cut_within_a_character_ends_the_file(tmp_path: Path, runs: ModuleType):
    runs.write_grpo(tmp_path, steps=3)
    with (tmp_path / "samples.jsonl").open("ab") as file:
        file.write('{"response": "é'.encode()[:-1])
    (everything,) = sets_of(write_report(tmp_path))
    assert len(everything["groups"]) == 6
    with (tmp_path / "samples.jsonl").open("ab") as file:
        file.write(b"\n")
    with pytest.raises(ValueError, match=r"samples.jsonl line 25 is not JSON"):
        write_report(tmp_path)


def test_two_evaluations_and_two_runs_are_compared(tmp_path: Path, runs: ModuleType):
    scenes = list(generate("heldout", 30, 0))
    for name, slip_px in (("start", 9), ("end", 2)):
        runs.write_evaluation(tmp_path / name / "heldout", scenes[: 20 + slip_px], slip_px, right=0.7)
        runs.write_grpo(tmp_path / name, steps=6)
    assert main(["--compare", str(tmp_path / "start" / "heldout"), str(tmp_path / "end" / "heldout")]) == 0
    page = tmp_path / "end" / "heldout" / "compare.html"
    assert Page(page.read_text()).count("table") == 2 and "start against end" in page.read_text()
    assert [(each["sides"], len(each["groups"])) for each in sets_of(page)] == [(["start", "end"], 22)] * 2
    assert main(["--compare", str(tmp_path / "start"), str(tmp_path / "end")]) == 0
    (pairs,) = sets_of(tmp_path / "end" / "compare.html")
    assert {tuple(rollout["side"] for rollout in group["rollouts"]) for group in pairs["groups"]} == {
        (0,) * 4 + (1,) * 4
    }
    assert main(["--compare", str(tmp_path / "start"), str(tmp_path / "end" / "heldout")]) == 2


def test_runs_with_nothing_in_common_are_not_compared(
    tmp_path: Path, runs: ModuleType, caplog: pytest.LogCaptureFixture
):
    runs.write_grpo(tmp_path / "a", steps=6)
    runs.write_grpo(tmp_path / "b", steps=6)
    rows = (tmp_path / "b" / "samples.jsonl").read_text()
    (tmp_path / "b" / "samples.jsonl").write_text(rows.replace("tiny_world", "other"))
    (tmp_path / "b" / "metrics.jsonl").write_text('{"step": 1, "data": {"of_another_program": 1.0}}\n')
    assert main(["--compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 2
    assert "no item and no metric in common" in caplog.text


def test_two_cold_starts_have_curves_to_compare(tmp_path: Path, runs: ModuleType):
    for name in ("a", "b"):
        runs.write_sft(tmp_path / name, steps=60)
    assert main(["--compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    page = tmp_path / "b" / "compare.html"
    assert Page(page.read_text()).count("figure") == 4 and sets_of(page) == []


def test_thinned_runs_say_so_and_hold_no_more_than_asked_for(tmp_path: Path, runs: ModuleType):
    for name in ("a", "b"):
        runs.write_grpo(tmp_path / name, steps=6)
    page = write_comparison(tmp_path / "a", tmp_path / "b", samples=24)
    (pairs,) = sets_of(page)
    assert sum(len(group["rollouts"]) for group in pairs["groups"]) == 24
    assert pairs["note"].endswith(" Of a, every 2nd prompt was read. Of b, every 2nd prompt was read.")
