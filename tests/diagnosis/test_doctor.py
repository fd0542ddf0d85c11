"""What the command says, writes and returns."""

import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from vgr_rl.diagnosis.run import read_run
from vgr_rl.doctor import main

HEALTHY = Path(__file__).parent / "real" / "healthy"


def test_a_healthy_run(capsys: pytest.CaptureFixture[str]):
    assert main([str(HEALTHY)]) == 0
    assert "nothing found in the 99 steps" in capsys.readouterr().out


def test_a_finding_has_evidence_metric_knob_and_docs(
    runs: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run_dir = runs.write_run(tmp_path / "run", runs.Policy(cut=0.5))
    assert main([str(run_dir), "--json", str(tmp_path / "out.json")]) == 1
    shown = " ".join(capsys.readouterr().out.split())
    content = json.loads((tmp_path / "out.json").read_text())
    (finding,) = content["findings"]
    rate, _ = finding["evidence"]
    assert rate["name"] == "response/truncated_rate" and rate["value"] > 0.3 and rate["steps"] == [3, 12]
    assert finding["docs"] == "docs/doctor.md#responses-cut-at-the-limit"
    for said in ("sentence", "metric", "knob", "docs"):
        assert finding[said] in shown
    assert f"response/truncated_rate {rate['value']:.4g} (steps 3 to 12)" in shown


def test_warnings_alone_leave_the_status_0(runs: ModuleType, healthy: Path, tmp_path: Path):
    run_dir = runs.with_numbers(healthy, tmp_path / "run", lambda p: {"actor/entropy": 0.5 * 0.001**p})
    assert main([str(run_dir)]) == 0


def test_a_nan_is_null_in_json(runs: ModuleType, healthy: Path, tmp_path: Path):
    run_dir = runs.with_numbers(healthy, tmp_path / "run", lambda p: {"actor/grad_norm": float("nan")})
    assert main([str(run_dir), "--json", str(tmp_path / "out.json")]) == 1
    (finding,) = json.loads((tmp_path / "out.json").read_text())["findings"]
    assert finding["evidence"][0] == {"name": "actor/grad_norm", "value": None, "steps": [1, 1]}


@pytest.mark.parametrize("name", ["metrics.jsonl", "samples.jsonl", "events.jsonl"])
def test_a_line_that_is_being_written_is_left_out(runs: ModuleType, tmp_path: Path, name: str):
    run_dir = runs.write_run(tmp_path, steps=3)
    before = read_run(run_dir)
    with (run_dir / name).open("a") as file:
        file.write('{"step": 4, "da')
    assert read_run(run_dir) == before


def test_a_run_without_a_step_is_fine(runs: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(runs.write_run(tmp_path, steps=0))]) == 0
    assert "0 steps" in capsys.readouterr().out


def test_a_step_that_was_only_validated_is_fine(runs: ModuleType, tmp_path: Path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "data": {"val-aux/source/score/mean@1": 2.1}}\n')
    assert main([str(tmp_path)]) == 0


def _no_folder(path: Path) -> None:
    shutil.rmtree(path)


def _no_files(path: Path) -> None:
    for file in path.iterdir():
        file.unlink()


def _no_json(path: Path) -> None:
    (path / "metrics.jsonl").write_text("step 1\n")


def _other_rows(path: Path) -> None:
    (path / "samples.jsonl").write_text('{"step": 1, "text": "…"}\n')


def _no_yaml(path: Path) -> None:
    (path / "config.yaml").write_text("a: [")


def _cold_start(path: Path) -> None:
    (path / "metrics.jsonl").write_text('{"step": 1, "data": {"train/loss": 2.0}}\n')


@pytest.mark.parametrize("spoil", [_no_folder, _no_files, _no_json, _other_rows, _no_yaml, _cold_start])
def test_what_is_no_run_is_refused(runs: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: Any):
    run_dir = runs.write_run(tmp_path / "run", steps=1)
    spoil(run_dir)
    assert main([str(run_dir)]) == 2
    assert str(run_dir) in caplog.text


def test_a_folder_of_runs_points_on_to_them(runs: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    run_dir = runs.write_run(tmp_path / "demo" / "grpo", steps=1)
    assert main([str(run_dir.parent)]) == 2
    assert f"such as {run_dir}" in caplog.text
