"""SAM2 servers as Ray actors: several processes ask, a dead one is a reason, and a run is rewarded by their masks."""

import asyncio
import io
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.e2e.runs import lines, metrics
from vgr_rl.errors import ConfigError
from vgr_rl.prepare import main as prepare
from vgr_rl.segment.server import MaskClient, MaskReply, MaskRequest, server_name, start_servers
from vgr_rl.tiny.segmenter import build_sam2

pytestmark = pytest.mark.e2e


def test_actors_answer_by_name_and_a_dead_one_is_a_reason(tmp_path: Path) -> None:
    import ray

    build_sam2().save_pretrained(tmp_path / "sam2")
    stream = io.BytesIO()
    Image.linear_gradient("L").save(stream, "PNG")
    request = MaskRequest(1, {"bytes": stream.getvalue()}, ((10.0, 10.0, 200.0, 120.0),))
    ray.init(num_cpus=2, address="local", log_to_driver=False, include_dashboard=False)
    try:
        started = start_servers(str(tmp_path / "sam2"), servers=2, gpus=0, queue=8, batch=4, images=8)
        client = MaskClient([ray.get_actor(server_name(index)) for index in range(2)], timeout_s=120)

        async def group() -> list[MaskReply]:
            return await asyncio.gather(*[client.masks(request) for _ in range(4)])

        replies = asyncio.run(group())
        assert len(set(map(repr, replies))) == 1 and replies[0].masks is not None
        assert replies[0].masks[0]["size"] == [256, 256]
        counts = ray.get([server.counts.remote() for server in started])
        assert sorted(one["requests"] for one in counts) == [0, 4] and sum(one["embedded"] for one in counts) == 1
        assert asyncio.run(MaskClient(started, timeout_s=1e-4).masks(request)).reason == (
            "no reply within segmenter.timeout_s=0.0001"
        )
        for server in started:
            ray.kill(server, no_restart=False)
        reply = asyncio.run(client.masks(request))
        assert reply == replies[0] or "Actor" in str(reply.reason)
        ray.get([server.counts.options(max_task_retries=-1).remote() for server in started])
        assert asyncio.run(client.masks(request)) == replies[0], "a server that died was started again"
        for server in started:
            ray.kill(server)
        reply = asyncio.run(client.masks(request))
        assert reply.masks is None and "Actor" in str(reply.reason)
        with pytest.raises(ConfigError, match=f"segmenter.model={tmp_path}: a server of 1 did not start: .*OSError"):
            start_servers(str(tmp_path), servers=1, gpus=0, queue=8, batch=4, images=8)
    finally:
        ray.shutdown()


def test_boxes_are_rewarded_for_the_masks_that_sam2_makes_of_them(tmp_path: Path) -> None:
    counts = ["--train", "4", "--val", "2", "--heldout", "2", "--sft", "2", "--sft-val", "2"]
    prepare(["tiny", "--masks", "--out", str(tmp_path / "data"), *counts])
    sizes = ("data.train_batch_size=4", "actor_rollout_ref.actor.ppo_mini_batch_size=4", "trainer.save_freq=-1")
    files = ("data.train_files=data/train.parquet", "data.val_files=data/val.parquet")
    short = ("trainer.total_training_steps=1", "run_dir=run", "trainer.logger=[tensorboard]")
    command = [sys.executable, "-m", "vgr_rl.main", "recipe=vrt/tiny_boxes", *sizes, *files, *short]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=400)
    assert result.returncode == 0, result.stderr[-4000:]
    samples = lines(tmp_path / "run" / "samples.jsonl")
    scores = [row["terms"]["dual_mask_iou"] for row in samples]
    assert len(scores) == 32 and metrics(tmp_path / "run", "reward/dual_mask_iou/mean") == [
        pytest.approx(sum(scores) / len(scores))
    ]
    pointing = [score for row, score in zip(samples, scores, strict=True) if row["boxes_orig_px"]]
    assert sum(pointing) / len(pointing) > 0.5, "the tiny base points well, and the tiny SAM2 finds what it points at"
