"""The tables of a report."""

from pathlib import Path
from types import ModuleType
from typing import Any

from vgr_rl.tiny.world import generate
from vgr_rl.viewer.comparison import comparison, start_and_end
from vgr_rl.viewer.runs import read_evaluation


def test_only_a_difference_beyond_its_error_is_marked(tmp_path: Path, runs: ModuleType):
    scenes = list(generate("heldout", 30, 0))
    runs.write_evaluation(tmp_path / "a", scenes, slip_px=9, right=0.7, seed=0)
    runs.write_evaluation(tmp_path / "b", scenes, slip_px=2, right=0.7, seed=0)
    first, second = read_evaluation(tmp_path / "a"), read_evaluation(tmp_path / "b")

    def trend(table: Any, label: str) -> str:
        return next(row.trend for row in table.rows if row.label == label)

    assert trend(comparison(first, second)[0], "Dual IoU") == "better"
    assert trend(comparison(second, first)[0], "Dual IoU") == "worse"
    assert {row.trend for row in comparison(first, first)[0].rows} == {"unclear"}


def test_a_run_has_a_table_of_its_start_and_end(tmp_path: Path):
    metrics = {
        "reward/score/mean": [(step, float(step)) for step in range(30)],
        "reward/mask_iou/mean": [(step, step + 5.0) for step in range(30)],
        "reward/seldom/mean": [(0, 1.0), (1, 0.5)],
    }
    table = start_and_end(metrics)
    assert table is not None and table.n == 10
    assert [(row.label, row.before.mean, row.after.mean, row.difference.mean) for row in table.rows] == [
        ("Reward", "4.500", "24.5", "+20.0"),
        ("Mask IoU", "9.500", "29.5", "+20.0"),
    ]
    assert start_and_end({"reward/score/mean": [(1, 2.0)], "train/loss": [(1, 1.0), (2, 1.0)]}) is None
