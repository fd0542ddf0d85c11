"""Pictures of rollouts, in the files of a real offline run of wandb and of a real TensorBoard writer."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb
from omegaconf import OmegaConf
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from vgr_rl.grounding import Size, box_rle
from vgr_rl.monitoring.dashboard import DASHBOARD, add_tensorboard_layout
from vgr_rl.monitoring.overlay import Overlay
from vgr_rl.monitoring.pictures import RolloutPictures, described, problems, spread, trackers

MASK = box_rle((8, 8, 16, 16), Size(64, 64))


def rollout(group: int, number: int, **more: Any) -> dict[str, Any]:
    return {
        "id": f"item-{group}", "group": f"g{group}", "rollout": number, "question": "Where is <b>it</b>?",
        "options": ["left", "right"], "answer": "A", "predicted_answer": "A", "response": "<think># it\n* is</think>",
        "score": 1.5, "advantage": 0.25 * number, "parts": {"accuracy": 1.0, "dual_iou": 0.5},
        "boxes_orig_px": [[1, 2, 11, 12]], "targets": [{"box": [1, 2, 11, 7], "name": "cup"}], **more,
    }  # fmt: skip


def step_rows(**more: Any) -> list[dict[str, Any]]:
    return [rollout(group, number, **more) for group in range(4) for number in range(3)]


def picture(row: Any) -> Image.Image:
    return Image.new("RGB", (64, 64), (int(row["id"][-1]) * 40, 0, 0))


class Recorder:
    def __init__(self) -> None:
        self.shown: list[tuple[str, int, list[str]]] = []

    def encode(self, shown: Overlay) -> str:
        shown.drawn()
        return f"{shown.row['id']}/{shown.row['rollout']}"

    def show(self, name: str, rows: Any, pictures: Any, step: int) -> None:
        assert [row["id"] for row in rows] == [picture.split("/")[0] for picture in pictures]
        self.shown.append((name, step, pictures))


def test_the_first_and_every_nth_step_show_rollouts_of_several_prompts() -> None:
    recorder = Recorder()
    pictures = RolloutPictures([recorder], every_n_steps=5, rollouts=2, validation=2)
    for step in range(1, 11):
        pictures.train(step_rows(), step, picture)
    assert recorder.shown == [("rollouts", step, ["item-0/0", "item-2/0"]) for step in (1, 5, 10)]


def test_nothing_is_read_when_nothing_is_shown() -> None:
    def unwanted(row: Any) -> Image.Image:
        raise AssertionError

    RolloutPictures([], 1, 2, 2).train(step_rows(), 1, unwanted)
    RolloutPictures([Recorder()], 0, 2, 2).train(step_rows(), 1, unwanted)
    RolloutPictures([Recorder()], 1, 0, 2).train(step_rows(), 1, unwanted)
    assert RolloutPictures([], 1, 2, 2).followed(10) == []


def test_a_picture_that_cannot_be_read_is_told_and_left_out() -> None:
    def missing(row: Any) -> Image.Image:
        if row["id"] == "item-0":
            raise FileNotFoundError("gone.png")
        return picture(row)

    told: list[str] = []
    recorder = Recorder()
    RolloutPictures([recorder], 1, 2, 0, told.append).train(step_rows(), 1, missing)
    assert recorder.shown == [("rollouts", 1, ["item-2/0"])]
    assert told == ["step 1: no picture of sample item-0: gone.png"]


def test_a_picture_that_cannot_be_drawn_is_told_and_left_out() -> None:
    rows = step_rows()
    rows[0]["boxes_orig_px"] = [[20, 2, 1, 12]]  # its sides are the wrong way round
    told: list[str] = []
    recorder = Recorder()
    RolloutPictures([recorder], 1, 4, 0, told.append).train(rows, 1, picture)
    assert recorder.shown == [("rollouts", 1, ["item-1/0", "item-2/0", "item-3/0"])]
    assert told and told[0].startswith("step 1: no picture of sample item-0: ")


def test_the_time_of_all_pictures_is_told_once() -> None:
    def slow(row: Any) -> Image.Image:
        time.sleep(0.01)
        return picture(row)

    pictures = RolloutPictures([Recorder()], 1, 2, 2)
    pictures.train(step_rows(), 1, slow)
    pictures.validation(step_rows()[:3], 1, slow)
    assert pictures.taken_s() >= 0.05 and pictures.taken_s() == 0.0


@pytest.mark.parametrize("value", [-1, 1.5, True, None, "all"])
def test_a_wrong_number_is_refused_with_its_key(value: Any) -> None:
    good = {"every_n_steps": 10, "rollouts": 4, "validation": 0}
    assert problems(OmegaConf.create({"pictures": good})) == []
    (problem,) = problems(OmegaConf.create({"pictures": {**good, "rollouts": value}}))
    assert problem == f"pictures.rollouts={value} but expected a whole number, 0 (none) or more"


@pytest.mark.parametrize("trainer, says", [
    (
        {"test_freq": 5},
        "4 rollouts of the first and every 10th step and 2 validation items when it validates (trainer.test_freq=5) "
        "in wandb",
    ),
    (
        {"test_freq": -1},
        "4 rollouts of the first and every 10th step in wandb; no validation items: nothing validates "
        "(trainer.test_freq=-1)",
    ),
    (
        {"val_before_train": True},
        "4 rollouts of the first and every 10th step and 2 validation items when it validates (trainer.test_freq=-1) "
        "in wandb",
    ),
    ({"logger": ["console"]}, "none: trainer.logger has none of wandb, tensorboard"),
])  # fmt: skip
def test_the_plan_says_what_will_be_shown(trainer: Any, says: str) -> None:
    keys = {"pictures": {"every_n_steps": 10, "rollouts": 4, "validation": 2}}
    defaults = {"logger": "wandb", "test_freq": -1, "val_before_train": False}
    assert described(OmegaConf.create({**keys, "trainer": {**defaults, **trainer}})) == says


def test_spread_covers_the_data() -> None:
    assert spread(1000, 4) == [0, 250, 500, 750] and spread(3, 4) == [0, 1, 2] and spread(0, 4) == []


@pytest.fixture
def wandb_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = wandb.init(project="test", mode="offline", dir=tmp_path)
    yield Path(run.dir)
    run.finish()


def test_wandb_gets_native_overlays_and_a_table_that_grows(wandb_run: Path) -> None:
    pictures = RolloutPictures(trackers({"wandb": wandb}), every_n_steps=2, rollouts=2, validation=2)
    masks = {"pred_masks": [None, MASK], "targets": [{"box": [1, 2, 11, 7], "name": "cup", "mask": MASK}]}
    for step in (1, 2, 3):
        pictures.train(step_rows(**masks, advantage=None), step, picture)
        wandb.log({"reward/score/mean": 1.0}, step=step)  # as verl does at the end of a step
    validated = [rollout(3, 0)]
    del validated[0]["advantage"]
    pictures.validation(validated, 4, picture)
    wandb.finish()

    media = wandb_run / "media"
    images = sorted((media / "images" / "rollouts").glob("[12]_*.png"))
    assert len(images) == 4 and {Image.open(path).size for path in images} == {(256, 256)}
    assert len(list((media / "images" / "validation").glob("1_*.png"))) == 1
    found = {json.dumps(json.loads(path.read_text())) for path in (media / "metadata" / "boxes2D").rglob("*.json")}
    boxes = [json.loads(text) for text in found]
    labels = {"0": "true", "1": "predicted"}
    assert sorted((box["class_labels"] == labels, box["box_data"][0]["box_caption"]) for box in boxes) == [
        (True, "1: IoU 0.50"), (True, "cup"),
    ]  # fmt: skip
    (predicted,) = [box["box_data"][0] for box in boxes if box["box_data"][0]["class_id"] == 1]
    assert predicted["domain"] == "pixel" and predicted["scores"] == {"iou": 0.5}
    assert predicted["position"] == {"minX": 4, "minY": 8, "maxX": 44, "maxY": 48}
    mask_files = list((media / "images" / "mask" / "rollouts").glob("*.mask.png"))
    assert {tuple(np.unique(np.asarray(Image.open(path)))) for path in mask_files} == {(0, 1), (0, 2)}
    tables = [json.loads(path.read_text()) for path in sorted((media / "table" / "rollouts").glob("table_*.json"))]
    rows = sorted(row for table in tables for row in table["data"])
    assert [row[:3] for row in rows] == [[1, 1, "item-0"], [1, 2, "item-2"], [2, 1, "item-0"], [2, 2, "item-2"]]
    assert rows[0][3:] == [
        "Where is <b>it</b>?\nA. left\nB. right", "<think># it\n* is</think>", "A", "A", 1.5, None,
        '{"accuracy": 1.0, "dual_iou": 0.5}',
    ]  # fmt: skip


def test_tensorboard_gets_the_same_pictures_and_the_panels(tmp_path: Path) -> None:
    writer = SummaryWriter(str(tmp_path))
    pictures = RolloutPictures(trackers({"tensorboard": type("T", (), {"writer": writer})}), 2, 2, 2)
    for step in (1, 2, 3):
        pictures.train(step_rows(), step, picture)
    pictures.validation([rollout(3, 0)], 4, picture)
    add_tensorboard_layout(writer)
    writer.close()

    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0, "tensors": 0}).Reload()
    assert events.Tags()["images"] == ["rollouts/1", "rollouts/2", "validation/1"]
    first, second = events.Images("rollouts/2")
    assert (first.step, second.step, first.width, first.height) == (1, 2, 256, 256)
    text = events.Tensors("rollouts/1/text_summary")[0].tensor_proto.string_val[0].decode()
    assert all(line.startswith("    ") for line in text.splitlines()) and '"dual_iou": 0.5' in text
    layout = events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0].decode("utf-8", "replace")
    for section, panels in DASHBOARD.items():
        assert section in layout
        assert all(panel.title in layout for panel in panels)
