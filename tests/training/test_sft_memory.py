"""What a cold start is estimated to take, and that its plan says what does not fit."""

from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader
from transformers import Qwen2_5_VLConfig

from tests.training.sft_fixtures import run_overrides, sft_config, write_tiny_data, write_tiny_model
from tests.training.test_memory import SEVEN_B
from vgr_rl.grounding.geometry import ResizeRule
from vgr_rl.training import memory_plan, sft_memory
from vgr_rl.training.cluster import GIB, Cluster
from vgr_rl.training.memory import count_parameters
from vgr_rl.training.sft_preflight import check

RULE = ResizeRule(28, 56 * 56, 12845056)


def _needs(image_tokens: int = 1300, **values: Any) -> memory_plan.Needs:
    config = sft_config("recipe=treevgr", *(f"{key.replace('__', '.')}={value}" for key, value in values.items()))
    hf_config = Qwen2_5_VLConfig(**SEVEN_B)
    return sft_memory.estimate(config, hf_config, count_parameters(hf_config), RULE, 6000, image_tokens)


def test_the_papers_cold_start_fits_its_gpus() -> None:
    needs = _needs()
    assert needs.update["optimiser"] == 2 * needs.update["weights"] == 8_292_166_656
    assert memory_plan.check(needs, Cluster(1, 8, 80 * GIB, 512 * GIB)) == [] and needs.rollout == {}


@pytest.mark.parametrize(
    ("values", "gpu_gib", "host_gib", "knob"),
    [
        ({"trainer__n_gpus_per_node": 1}, 80, 512, "model.lora_rank"),
        ({"data__max_token_len_per_gpu": 131072}, 80, 512, "data.max_token_len_per_gpu"),
        ({"data__num_workers": 64}, 80, 512, "data.num_workers"),
    ],
)
def test_what_does_not_fit_names_its_knob(values: dict[str, Any], gpu_gib: int, host_gib: int, knob: str) -> None:
    problems = memory_plan.check(_needs(**values), Cluster(1, 8, gpu_gib * GIB, host_gib * GIB))
    assert problems and all(knob in problem for problem in problems), problems


def test_images_wait_in_as_many_batches_as_the_loader_prepares() -> None:
    prepared = DataLoader([0], num_workers=8).prefetch_factor
    assert prepared is not None
    rows = 8 * prepared * 256  # of 8 loaders' workers: what all 8 processes prepare, 32 rows a batch each
    assert _needs().host["images in flight"] == rows * memory_plan.images_bytes(RULE, 1300)


def test_a_plan_says_what_is_missing(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "model")
    write_tiny_data(tmp_path, train=8, val=4)
    cluster = ["simulate.nodes=1", "simulate.gpus_per_node=4", "simulate.host_memory_gib=1"]
    given = ["hardware=8gpu", *run_overrides(tmp_path), "data.train_batch_size=8", "data.val_files=null"]
    plan = check(sft_config(*given, *cluster, "dry_run=true"), tmp_path)
    too_few, too_little = (line for line in plan.lines() if line.startswith("but"))
    assert "needs 8 GPUs a node (trainer.n_gpus_per_node) but a node has 4" in too_few
    assert "a node takes about 6" in too_little and "trainer.n_gpus_per_node" in too_little
