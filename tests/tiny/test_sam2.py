"""The SAM2 that ships with the package finds what a box or a point shows, as its README says."""

import json
from pathlib import Path

import pytest
from safetensors import safe_open

from scripts.make_tiny_sam2 import evaluate, parse_args
from vgr_rl.config.resolvers import asset_path
from vgr_rl.tiny.segmenter import build_sam2

FOLDER = Path(asset_path("sam2"))


def test_it_finds_objects_on_held_out_scenes() -> None:
    measured = json.loads((FOLDER / "training.json").read_text())["on_500_heldout"]
    found = evaluate(FOLDER, 30)
    for kind in ("box_miou", "point_miou"):
        assert found[kind] > measured[kind] - 0.08 and measured[kind] > 0.85, "a box as a mask has 0.76"


def test_it_is_what_the_script_makes_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["make_tiny_sam2.py", "--out", str(FOLDER)])
    given, recorded = vars(parse_args()), json.loads((FOLDER / "training.json").read_text())["settings"]
    assert [str(recorded[name]) for name in recorded] == [str(given[name]) for name in recorded]
    assert recorded.keys() >= {"steps", "batch", "lr", "seed"}


def test_it_has_the_architecture_of_the_builder_and_is_small() -> None:
    fresh = build_sam2().state_dict()
    with safe_open(FOLDER / "model.safetensors", "pt") as weights:
        shapes = {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}
    assert shapes.items() <= {name: tuple(value.shape) for name, value in fresh.items()}.items()
    assert (FOLDER / "model.safetensors").stat().st_size < 2.5e6
