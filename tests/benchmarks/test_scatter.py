"""The figures over models: which points they have, and that names do not cover each other."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from PIL import Image

from vgr_rl.benchmarks.command import main
from vgr_rl.benchmarks.figures import Point, draw_points, name_points
from vgr_rl.benchmarks.scatter import Panel, correlation_panels, miou_panel, pearson


def result(benchmark: str, name: str, overall: float, miou: float | None = None, **extra: Any) -> dict[str, Any]:
    described = {"benchmark": benchmark, "name": name, "convention": "authors", "whole_benchmark": True}
    return {"overall": overall, "miou": miou, "extra": {**described, "n": 9, "missing": 0, **extra}}


def positions(panel: Panel) -> Mapping[str, tuple[float, float]]:
    return {point.name: (point.x, point.y) for point in panel.points}


def test_published_models_with_both_numbers_stand_beside_ours() -> None:
    part = result("treebench", "part", 0.25, 0.5, whole_benchmark=False)
    given = [result("treebench", "mine", 0.5, 0.75), part, result("treebench", "none", 0.5)]
    panel = miou_panel("treebench", given)
    assert positions(panel) == {
        "DeepEyes-7B": (30.0, 37.5),
        "Pixel-Reasoner-7B": (35.7, 39.0),
        "TreeVGR-7B": (44.0, 50.4),
        "TreeVGR-7B, released script": (43.3, 49.4),
        "mine": (75.0, 50.0),
        "part*": (50.0, 25.0),
    }
    assert [point.name for point in panel.points if not point.published] == ["mine", "part*"]


def test_benchmarks_are_matched_by_the_models_names() -> None:
    drawn = correlation_panels([result("treebench", "mine", 0.437), result("vstar", "mine", 0.827)])
    first = next(panel for panel in drawn if (panel.x[:9], panel.y[:2]) == ("TreeBench", "V*"))
    assert positions(first) == {
        "Qwen2.5-VL-7B": (37.0, 74.3), "TreeVGR-7B": (50.4, 91.1), "mine": (pytest.approx(43.7), pytest.approx(82.7)),
    }  # fmt: skip
    assert first.heading == "r = 1.00, 3 models"
    others = [panel for panel in drawn if panel is not first]
    assert len(others) == 9 and {panel.heading for panel in others} == {"2 models"}


def test_a_result_beside_the_published_row_of_its_name() -> None:
    panel = miou_panel("treebench", [result("treebench", "TreeVGR-7B", 0.5, 0.75)])
    assert [(p.published, p.x, p.y) for p in panel.points if p.name == "TreeVGR-7B"] == [
        (True, 44.0, 50.4),
        (False, 75.0, 50.0),
    ]


def test_models_that_cannot_be_told_apart_are_named() -> None:
    runs = [result("treebench", "treebench", share, 0.5) for share in (0.4, 0.5)]  # runA/treebench and runB/treebench
    for draw in (lambda: miou_panel("treebench", runs), lambda: correlation_panels(runs)):
        with pytest.raises(ValueError, match="two models of TreeBench are called treebench"):
            draw()
    with pytest.raises(ValueError, match="two models of TreeBench are called TreeVGR-7B"):
        correlation_panels([result("treebench", "TreeVGR-7B", 0.5)])


def test_two_points_and_equal_numbers_have_no_correlation() -> None:
    points = [Point("a", True, 1, 2), Point("b", True, 2, 1), Point("c", True, 3, 3)]
    assert pearson(points[:2]) is None and pearson([point._replace(y=1) for point in points]) is None
    assert pearson(points) == pytest.approx(0.5)


def test_what_cannot_be_drawn_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "vrt.json"
    path.write_text(json.dumps(result("vrt_bench", "mine", 0.5)))
    for arguments, message in (
        (["vstar"], "no model has both accuracy and mIoU of V* Bench"),
        (["vstar", str(path)], "mine is a result of vrt_bench, not of vstar"),
        (["vrt_bench"], "no model has both accuracy and mIoU of VRT-Bench"),
        (["correlation", str(path)], "VRT-Bench has no accuracy; give results of treebench, "),
    ):
        assert main(["figure", *arguments, "--out", str(tmp_path / "f.png")]) == 2
        assert message in capsys.readouterr().err.replace("\n", " ")
    assert main(["figure", "treebench", "--out", "f.jpg"]) == 2
    assert "--out=f.jpg: the name must end in one of .png, .svg, .pdf" in capsys.readouterr().err


def test_files_are_written(tmp_path: Path) -> None:
    svg, png = tmp_path / "f.svg", tmp_path / "f.png"
    assert main(["figure", "treebench", "--out", str(svg), "--out", str(png)]) == 0
    assert "<svg" in svg.read_text() and Image.open(png).size[0] > 500


def test_names_do_not_cover_each_other() -> None:
    figure = Figure(figsize=(4, 3))
    axis = figure.add_subplot()
    points = [Point(f"a model of name {index}", True, 50 + index / 10, 50 + index % 2) for index in range(4)]
    points += [Point("far", False, 60, 60)]
    draw_points(axis, points)
    figure.draw_without_rendering()
    name_points(figure, axis, points)
    boxes = [text.get_window_extent() for text in axis.texts]
    assert [text.get_text() for text in axis.texts] == [point.name for point in points]
    assert not any(a.overlaps(b) for index, a in enumerate(boxes) for b in boxes[:index])
