"""What RL gains of the tiny R-Sa2VA's masks: the commands, and the table of what they measured."""

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module

from scripts.ablations.masks import ARMS, main, measured, table, tasks
from vgr_rl.config import entry
from vgr_rl.data.schema import write_samples
from vgr_rl.data.tiny_masks import rl_rows

SAMPLES = 4


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An output folder with held-out samples."""
    (tmp_path / "fresh").mkdir()
    write_samples(rl_rows("heldout", SAMPLES, 1), tmp_path / "fresh" / "heldout.parquet")
    return tmp_path


def write_predictions(out: Path, run: str, right: int, samples: int = SAMPLES) -> None:
    """Write an evaluation whose first answers point at all that is asked for, and whose others at nothing."""
    folder = out / run / "heldout"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps({"answer": {"miou": right / 10}}))
    with (folder / "predictions.jsonl").open("w") as file:
        for place, row in enumerate(rl_rows("heldout", samples, 1)):
            masks = [target.mask_rle for target in row.sample.targets if target.role == "answer"] * (place < right)
            response = f"<think>so</think><answer>{'[SEG]' * len(masks)}</answer>"
            file.write(json.dumps({"key": row.sample.id, "response": response, "pred_masks": masks}) + "\n")


def test_every_arm_begins_at_the_cold_start_and_all_are_evaluated_on_samples_of_their_own() -> None:
    found = {task.name: task for task in tasks(Path("out"), [0, 1], 20)}
    assert len(found) == 2 + 2 * (1 + 2 * len(ARMS))
    entry.register()
    for arm, (_, weight) in ARMS.items():
        task, evaluation = found[f"train/{arm}/seed1"], found[f"evaluate/{arm}/seed1"]
        with initialize_config_module("vgr_rl.config", version_base="1.3"):
            config = compose("main", overrides=list(task.command[1:]))
        assert config.masks.best_rollout_weight == weight and config.seed == 1
        assert config.model.path == f"{found['train/cold_start'].out}/model" and "train/cold_start" in task.needs
        assert config.trainer.total_training_steps == 20
        assert {"data=out/fresh/heldout.parquet", f"model={task.out}/model"} <= set(evaluation.command)
        assert evaluation.needs == (task.name, "fresh")


def test_the_reward_is_that_of_the_answers_masks(out: Path) -> None:
    write_predictions(out, "cold_start", right=3)
    found = measured(out, out / "cold_start")
    assert sorted(found["mask_iou"].values()) == [0.0, 1.0, 1.0, 1.0]
    assert min(found["masks"].values()) == 0 and len(found["masks"]) == SAMPLES


def test_an_evaluation_that_lacks_samples_is_refused(out: Path) -> None:
    write_predictions(out, "cold_start", right=1, samples=3)
    with pytest.raises(ValueError, match="1 of 4 samples have no response"):
        measured(out, out / "cold_start")


def test_the_table_has_the_gain_with_its_error_and_that_of_each_seed(out: Path) -> None:
    write_predictions(out, "cold_start", right=1)
    for arm, rights in zip(ARMS, ((1, 2), (2, 4)), strict=True):
        for seed, right in enumerate(rights):
            write_predictions(out, f"{arm}/seed{seed}", right)
    cold_start, rewards, best = [line.split(" | ") for line in table(out, [0, 1]).splitlines()[2:]]
    assert cold_start[1:3] == ["0.250", ""]
    assert rewards[1:4] == ["0.375", "+0.125 ± 0.177", "+0.000, +0.250"]
    assert rewards[-1] == "0.150 |"
    assert best[1] == "0.750" and best[2].startswith("+0.500 ± ") and best[3] == "+0.250, +0.750"


def test_a_wrong_option_is_named(caplog: pytest.LogCaptureFixture) -> None:
    assert main(["--steps", "0"]) == 2
    assert "--steps=0" in caplog.text
