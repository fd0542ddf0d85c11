"""What RL gains of the tiny R-Sa2VA's masks: the commands, and the table of what they measured."""

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module

from scripts.ablations.masks import ARMS, METRIC, main, measured, table, tasks
from vgr_rl.config import entry


def write_metrics(out: Path, arm: str, rows: list[tuple[int, dict[str, float]]]) -> None:
    folder = out / arm / "seed1"
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps({"step": s, "data": d}) + "\n" for s, d in rows))


def test_every_arm_begins_at_the_cold_start_and_is_validated_before_and_after() -> None:
    found = {task.name: task for task in tasks(Path("out"), [0, 1], 20)}
    assert len(found) == 3 + 2 * len(ARMS)
    entry.register()
    for arm, (_, weight) in ARMS.items():
        task = found[f"{arm}/seed1"]
        assert task.needs == ("cold_start", "fresh")
        with initialize_config_module("vgr_rl.config", version_base="1.3"):
            config = compose("main", overrides=list(task.command[1:]))
        assert config.masks.best_rollout_weight == weight
        assert config.model.path == f"{found['cold_start'].out}/model" and config.seed == 1
        assert config.trainer.val_before_train and config.trainer.test_freq == config.trainer.total_training_steps == 20
        assert config.data.val_files == "out/fresh/heldout.parquet"


def test_the_table_has_the_gain_of_each_seed_and_their_mean_with_its_error() -> None:
    scores = {0: {"cold_start": 0.5, "rewards": 0.5, "best_rollout": 0.6}}
    assert table(scores).splitlines()[2:] == ["| 0 | 0.500 | 0.500 | +0.000 | 0.600 | +0.100 |"]
    scores[3] = {"cold_start": 0.4, "rewards": 0.6, "best_rollout": 0.6}
    assert table(scores).splitlines()[-1] == (
        "| mean | 0.450 ± 0.050 | 0.550 ± 0.050 | +0.100 ± 0.100 | 0.600 ± 0.000 | +0.150 ± 0.050 |"
    )


def test_scores_are_those_before_the_first_step_and_after_the_last(tmp_path: Path) -> None:
    for arm, end in (("rewards", 0.5), ("best_rollout", 0.7)):
        write_metrics(tmp_path, arm, [(0, {METRIC: 0.4}), (1, {"reward/score/mean": 2.0}), (2, {METRIC: end})])
    assert measured(tmp_path, 1, 2) == {"cold_start": 0.4, "rewards": 0.5, "best_rollout": 0.7}


def test_arms_that_did_not_begin_alike_are_refused(tmp_path: Path) -> None:
    for arm, start in (("rewards", 0.3), ("best_rollout", 0.4)):
        write_metrics(tmp_path, arm, [(0, {METRIC: start}), (2, {METRIC: 0.7})])
    with pytest.raises(ValueError, match="seed 1 begin with"):
        measured(tmp_path, 1, 2)


def test_a_wrong_option_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--steps", "0"])
    assert ended.value.code == 2 and "--steps=0" in capsys.readouterr().err
