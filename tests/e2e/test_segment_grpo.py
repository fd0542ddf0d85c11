"""GRPO of R-Sa2VA for real: rollouts with [SEG], masks made by the policy workers, rewards, resume and export.

The model likes to write [SEG] and to end its answer, and takes nearly everything for a mask; every true mask is the
whole picture. So some masks are right.
"""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.e2e.runs import CORRELATION, by_step, lines, metrics
from tests.e2e.tiny_benchmarks import vrt_bench
from vgr_rl.benchmarks.suite import score
from vgr_rl.data.schema import Row, write_samples
from vgr_rl.data.segment_commands import save
from vgr_rl.data.tiny_masks import rl_rows
from vgr_rl.grounding import Size, box_rle
from vgr_rl.tiny.segmenter import build_r_sa2va

pytestmark = pytest.mark.e2e
REWARD = Path(__file__).with_name("segs.py")
WHOLE = box_rle((0, 0, 64, 64), Size(64, 64))


def write_model(folder: Path) -> None:
    model, processor = build_r_sa2va("qwen2_5_vl")
    decoder, tokens = model.sam2.mask_decoder, processor.tokenizer.convert_tokens_to_ids(["[SEG]", "</answer>"])
    with torch.no_grad():
        model.get_input_embeddings().weight[:, 0] += 1.0
        model.get_output_embeddings().weight[tokens, 0] += 0.5
        decoder.upscale_conv2.bias += 1.0
        for head in decoder.output_hypernetworks_mlps:
            head.proj_out.bias += 0.2
    save(model, processor, folder)


def with_whole_masks(row: Row) -> Row:
    targets = tuple(replace(target, mask_rle=WHOLE) for target in row.sample.targets)
    return replace(row, sample=replace(row.sample, targets=targets))


def train(folder: Path, steps: int) -> None:
    result = subprocess.run(
        [
            *(sys.executable, "-m", "vgr_rl.main", "recipe=vrt/tiny", f"run_dir={folder}/run"),
            *(f"model.path={folder}/model", f"data.train_files={folder}/train.parquet", "data.val_files=[]"),
            *("data.train_batch_size=4", "actor_rollout_ref.actor.ppo_mini_batch_size=2", "data.make=null"),
            *("actor_rollout_ref.actor.optim.lr=1e-2", "guards.min_correlation_tokens=64"),
            f"+reward.terms.segs={{use: {REWARD}:counts_segs, weight: 1.0, params: {{}}}}",
            *(f"trainer.total_training_steps={steps}", "trainer.save_freq=2", "trainer.logger=[]"),
            *("trainer.test_freq=2", f"+validation.benchmarks.vrt_bench={{data: {folder}}}"),
            *("data.max_prompt_length=400", "masks.best_rollout_weight=0.5", "model.prefill='<answer>'"),
        ],
        capture_output=True, text=True, timeout=400, env={**os.environ, "WANDB_MODE": "offline"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-4000:]


def test_masks_are_made_before_grading_and_adapters_reach_the_rollouts(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    write_samples(map(with_whole_masks, rl_rows("train", 12, 0)), tmp_path / "train.parquet", "train")
    vrt_bench(tmp_path / "vrt_eval.tfrecord", 3)
    train(tmp_path, steps=2)
    train(tmp_path, steps=3)
    run = tmp_path / "run"
    assert [line["step"] for line in lines(run / "metrics.jsonl")] == [1, 2, 3], "resumed from step 2"
    assert min(metrics(run, CORRELATION)) > 0.999 and max(metrics(run, "actor/grad_norm")) > 0
    assert max(metrics(run, "reward/failure_rate")) == 0
    assert min(metrics(run, "timing_s/masks")) > 0 and min(metrics(run, "timing_s/old_log_prob")) > 0
    learnt, losses = by_step(run, "masks/best_rollouts"), by_step(run, "masks/best_rollout_loss")
    assert losses.keys() == {step for step, count in learnt.items() if count} and min(losses.values()) > 0
    rows = lines(run / "samples.jsonl")
    masks = [len(row["pred_masks"]) for row in rows]
    assert masks == [row["response"].count("[SEG]") for row in rows] and sum(masks) > 0
    assert {tuple(mask["size"]) for row in rows for mask in row["pred_masks"]} == {(64, 64)}
    answers = run / "validation" / "vrt_bench" / "step_2.jsonl"
    result = score("vrt_bench", tmp_path / "vrt_eval.tfrecord", answers).result
    assert by_step(run, "val/vrt_bench/answer/miou")[2] == result["answer"]["miou"]

    before, after = (load_file(folder / "model.safetensors") for folder in (tmp_path / "model", run / "model"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    adapted = {name for name in changed if name.startswith("vlm.model.layers.") and name.endswith("_proj.weight")}
    assert before.keys() == after.keys() and adapted
    assert changed - adapted == {name for name in before if name.startswith("projector.")}
