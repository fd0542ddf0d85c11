"""Measure the pass that makes masks of rollouts against the one for old log-probs; exits 1 above the limit.

`python scripts/bench/mask_pass.py`: the engine of `recipe=vrt/tiny` with random weights, one thread, 16 groups of four
rollouts whose responses are right answers about scenes of the tiny world. The masks' pass embeds each image, decodes
every `[SEG]` and encodes masks at the pictures' size; the other one has log-probs and entropy of every token, as verl
computes them. The passes take turns; the ratio is the median of those of all rounds, as a busy machine slows both. What
decoding adds to reading the responses is the difference to the same pass when it looks for no `[SEG]`.
"""

import io
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from hydra import compose, initialize_config_module
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this file's folder would hide the package `rewards`

from vgr_rl.config import entry
from vgr_rl.data.tiny_masks import tell
from vgr_rl.tiny.world import SIDE, generate, render_png
from vgr_rl.training import environment, launch

GROUPS, GROUP, ROUNDS, LIMIT = 16, 4, 15, 1.1
logger = logging.getLogger(__name__)


def main() -> int:
    """Print both times and their ratio, and return the exit status."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
    logger.setLevel(logging.INFO)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        engine = _engine(Path(folder))
    rollouts, segs = _rollouts(engine.model_config.get_processor())
    tokens = engine.engine_config.infer_max_token_len_per_gpu

    def masks() -> None:
        found = engine.decode_masks(rollouts.copy(), tokens)
        assert sum(map(len, found)) == segs

    def reading() -> None:
        token, engine._seg_token_id = engine._seg_token_id, -1
        found = engine.decode_masks(rollouts.copy(), tokens)
        engine._seg_token_id = token
        assert not any(found)

    def log_probs() -> None:
        from verl.utils import tensordict_utils

        data = rollouts.copy()
        sizes = {"use_dynamic_bsz": True, "max_token_len_per_gpu": tokens}
        settings = {"use_remove_padding": engine.use_remove_padding, "use_fused_kernels": False, **sizes}
        tensordict_utils.assign_non_tensor(data, **settings, temperature=1.0, calculate_entropy=True)
        engine.forward_backward_batch(data, None, forward_only=True)

    with engine.eval_mode():
        passes = (masks, log_probs, reading)
        rounds = [tuple(map(_seconds, passes)) for _ in range(ROUNDS + 1)][1:]  # the first sets things up
    masks_s, log_probs_s, reading_s = (statistics.median(own) for own in zip(*rounds, strict=True))
    ratio = statistics.median(one / other for one, other, _ in rounds)
    logger.info("%d rollouts, %d [SEG] about %d images", len(rollouts), segs, GROUPS)
    logger.info("masks          %6.3f s, of which decoding adds %.3f s", masks_s, masks_s - reading_s)
    logger.info("old log-probs  %6.3f s", log_probs_s)
    logger.info("%.2f times as long (limit %s)", ratio, LIMIT)
    return 0 if ratio <= LIMIT else 1


def _engine(folder: Path) -> Any:
    entry.register()
    with initialize_config_module("vgr_rl.config", version_base=None):
        config = compose("main", overrides=["recipe=vrt/tiny", f"model.path={folder}/model", "run_dir=unused"])
    environment.apply(config.hardware.env)
    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}

    import vgr_rl.plugin  # noqa: F401  as verl loads it
    from vgr_rl.data.segment_commands import save
    from vgr_rl.tiny.segmenter import build_r_sa2va
    from vgr_rl.training.segment_policy import SegmentPolicyCpuFSDPEngine  # isort: skip

    from verl.utils.config import omega_conf_to_dataclass

    save(*build_r_sa2va("qwen2_5_vl"), folder / "model")
    launch._derive(config)
    torch.distributed.init_process_group("cpu:gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    actor.engine.infer_max_token_len_per_gpu = config.actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu
    model = omega_conf_to_dataclass(config.actor_rollout_ref.model)
    engine = SegmentPolicyCpuFSDPEngine(model, actor.engine, actor.optim, actor.checkpoint)
    engine.initialize()
    return engine


def _rollouts(processor: Any) -> tuple[Any, int]:
    """Return the rollouts and how many `[SEG]` they have; prompts' inputs are stored in this process."""
    from verl.utils.tensordict_utils import list_of_dict_to_tensordict

    from vgr_rl.segment.predict import sam2_picture
    from vgr_rl.training import shared_features
    from vgr_rl.training.prompts import PromptEncoder, extend_position_ids

    encoder = PromptEncoder(processor, prefill="", max_prompt_tokens=256)
    stored: dict[str, dict[str, Any]] = {shared_features.PARTITION: {}, shared_features.PICTURES: {}}
    rows, segs = [], 0
    for scene in generate("train", GROUPS, 0):
        picture, told = Image.open(io.BytesIO(render_png(scene))), tell(scene)
        content = [{"type": "image"}, {"type": "text", "text": told.question}]
        prompt = encoder.encode([{"role": "user", "content": content}], [picture])
        stored[shared_features.PARTITION][scene.id] = prompt.features
        shown = {"picture": sam2_picture(picture, SIDE), "size": picture.size}
        stored[shared_features.PICTURES][scene.id] = shown
        said = told.response + processor.tokenizer.eos_token
        response = torch.tensor(processor.tokenizer(said, add_special_tokens=False)["input_ids"])
        segs += GROUP * (len(told.evidence) + len(told.answer))
        rows += GROUP * [
            {
                "input_ids": torch.cat([torch.tensor(prompt.token_ids), response]),
                "position_ids": extend_position_ids(prompt.position_ids, len(response)),
                "responses": response,
                "multi_modal_inputs": shared_features.reference(scene.id),
                "loss_mask": torch.ones_like(response),
            }
        ]

    def get(uids: Iterable[str], partition: str = shared_features.PARTITION) -> dict[str, dict[str, Any]]:
        return {uid: stored[partition][uid] for uid in uids}

    shared_features.get = get  # there is no TransferQueue
    return list_of_dict_to_tensordict(rows), segs


def _seconds(run: Callable[[], None]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


if __name__ == "__main__":
    sys.exit(main())
