"""The cold start of R-Sa2VA for real: it learns, leaves frozen parts alone, resumes exactly, and exports."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.e2e.runs import by_step, cold_start
from tests.training.segment_fixtures import write_mask_data, write_segmenter
from tests.training.sft_fixtures import run_overrides

pytestmark = pytest.mark.e2e
SETTINGS = ("model.lora_rank=4", "masks.points=64", "data.max_length=256", "trainer.save_freq=2", "trainer.test_freq=6")


def test_it_learns_resumes_and_exports_a_model_with_masks(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    write_segmenter(tmp_path / "model")
    write_mask_data(tmp_path, train=12, val=4)
    run_dir = tmp_path / "run"
    cold_start(tmp_path, run_dir, *SETTINGS, stop_after=3)
    first = by_step(run_dir)
    cold_start(tmp_path, run_dir, *SETTINGS)
    losses = by_step(run_dir)
    assert list(first) == [1, 2, 3] and list(losses) == [1, 2, 3, 4, 5, 6]
    assert losses[3] == pytest.approx(first[3], rel=1e-6), "made once more from the checkpoint of step 2"
    assert losses[6] < losses[1]
    text, bce, dice = (by_step(run_dir, f"train/{name}")[1] for name in ("lm_loss", "mask_bce", "mask_dice"))
    assert losses[1] == pytest.approx(text + 2 * bce + 0.5 * dice, rel=1e-4)
    validated = by_step(run_dir, "val/mask_iou")
    assert list(validated) == [6] and 0 <= validated[6] < 1

    before, after = (load_file(folder / "model.safetensors") for folder in (tmp_path / "model", run_dir / "model"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert before.keys() == after.keys()
    layers = "vlm.model.layers."  # of the language model, as transformers writes them
    parts = ("projector.", "sam2.mask_decoder.", layers)
    assert changed and all(name.startswith(parts) for name in changed)
    assert {name for name in changed if name.startswith("vlm.")} == {
        name for name in before if name.startswith(layers) and "_proj.weight" in name
    }
    _check_two_processes(tmp_path, run_dir)


def _check_two_processes(folder: Path, one: Path) -> None:
    """Two shards, some of them empty: the first step is that of one process, and a checkpoint is written."""
    two = folder / "two"
    overrides = run_overrides(folder, **{"run_dir": two, "data.num_workers": 0, "optim.lr": 1e-3})
    more = ("trainer.n_gpus_per_node=2", "trainer.total_training_steps=2", "trainer.logger=[tensorboard]")
    finished = subprocess.run(
        [sys.executable, "-m", "vgr_rl.sft", *overrides, *SETTINGS, *more],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    assert "adapter of 2 shards folded" in finished.stderr
    for name in ("train/lm_loss", "train/mask_iou"):
        assert by_step(two, name)[1] == pytest.approx(by_step(one, name)[1], rel=1e-3)
    assert list(by_step(two, "val/mask_iou")) == [2]
