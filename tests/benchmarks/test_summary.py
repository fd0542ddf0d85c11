import json
import math
import random
from statistics import fmean, stdev
from typing import Any

import pytest

from vgr_rl.benchmarks.summary import MEASURES, compare, estimate, summarise


def _row(
    row_id: str, score: float | None, accuracy: float | None = 1.0, boxes: int = 1, length: int = 10
) -> dict[str, Any]:
    iou = {"recall_iou": 0.5, "precision_iou": 0.25, "dual_iou": 0.375, "format": 1.0}
    parts = iou if accuracy is None else {**iou, "accuracy": accuracy}
    return {"id": row_id, "score": score, "parts": parts, "length": length, "boxes_orig_px": [[0, 0, 1, 1]] * boxes}


def test_mean_and_standard_error_of_the_mean():
    values = [1.0, 2.0, 2.0, 3.0, 7.0]
    result = estimate(values)
    assert (result.mean, result.n) == (3.0, 5)
    assert result.stderr == pytest.approx(stdev(values) / math.sqrt(5))


def test_summary_has_every_measure_and_the_number_of_rows():
    rows = [_row("a", 1.0, boxes=2, length=30), _row("b", 2.0, boxes=0, length=10)]
    summary = summarise(rows)
    assert summary["n"] == 2
    assert set(summary) == {*MEASURES, "n", "stderr"} and set(summary["stderr"]) == set(MEASURES)
    assert (summary["reward"], summary["boxes"], summary["length"]) == (1.5, 1.0, 20.0)
    assert summary["stderr"]["boxes"] == pytest.approx(1.0)
    assert (summary["recall_iou"], summary["precision_iou"], summary["dual_iou"]) == (0.5, 0.25, 0.375)


def test_a_failed_score_is_left_out_of_the_mean_and_never_counts_as_zero():
    summary = summarise([_row("a", None, accuracy=None), _row("b", 2.0), _row("c", 3.0)])
    assert (summary["reward"], summary["n"]) == (2.5, 3)
    assert summary["accuracy"] == 1.0


def test_what_is_not_known_is_null_and_the_summary_is_valid_json():
    summary = summarise([_row("a", None, accuracy=None)])
    assert summary["reward"] is None and summary["stderr"]["length"] is None
    json.dumps(summary, allow_nan=False)


def test_the_difference_is_paired_by_id_whatever_the_order():
    before = [_row("a", 0.0), _row("b", 10.0), _row("c", 20.0)]
    after = [_row("c", 20.5), _row("a", 1.0), _row("b", 10.3), _row("d", 99.0)]
    change = compare(before, after)["reward"]
    differences = [1.0, 0.3, 0.5]
    assert change.n == 3
    assert change.mean == pytest.approx(fmean(differences))
    assert change.stderr == pytest.approx(stdev(differences) / math.sqrt(3))


def test_an_id_of_two_data_sources_is_two_items():
    before = [{**_row("1", 0.0), "data_source": "a"}, {**_row("1", 5.0), "data_source": "b"}]
    after = [{**_row("1", 7.0), "data_source": "b"}, {**_row("1", 1.0), "data_source": "a"}]
    change = compare(before, after)["reward"]
    assert (change.mean, change.n) == (1.5, 2)


def test_pairing_sees_a_small_change_that_the_spread_between_items_hides():
    rng = random.Random(0)
    level = [rng.gauss(0, 10) for _ in range(200)]
    before = [_row(str(i), value) for i, value in enumerate(level)]
    after = [_row(str(i), value + rng.gauss(0.5, 0.1)) for i, value in enumerate(level)]
    change = compare(before, after)["reward"]
    assert change.mean == pytest.approx(0.5, abs=0.05)
    assert change.stderr < 0.02 < summarise(before)["stderr"]["reward"]


def test_a_missing_value_on_one_side_drops_that_pair_of_that_measure_only():
    changes = compare([_row("a", None), _row("b", 1.0)], [_row("a", 1.0), _row("b", 3.0)])
    assert (changes["reward"].mean, changes["reward"].n) == (2.0, 1)
    assert changes["length"].n == 2


def test_evaluations_of_different_items_are_refused():
    with pytest.raises(ValueError, match="share no id"):
        compare([_row("a", 1.0)], [_row("b", 1.0)])
    with pytest.raises(ValueError, match="repeat an id"):
        compare([_row("a", 1.0), _row("a", 2.0)], [_row("a", 1.0)])
