"""The policy R-Sa2VA in a process of its own: `python segment_policy_process.py MODEL OUT`.

Its engine is registered under the names of the other models' policy, which this test session may have imported, and
verl exchanges the forward pass of the model's class. OUT becomes a file with what was found, for
`test_segment_policy.py`, whose rollouts are those of `segment_rollouts`.
"""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import DictConfig
from tensordict import TensorDict

sys.path.insert(0, str(Path(__file__).parent))  # verl installs a package called `tests`
from segment_rollouts import PICTURES, PROMPTS, QUESTION, RESPONSES

from vgr_rl.config import entry
from vgr_rl.training import launch


def config_of(model: str, *overrides: str) -> DictConfig:
    entry.register()
    with initialize_config_module("vgr_rl.config", version_base=None):
        config = compose("main", overrides=["recipe=vrt/tiny", f"model.path={model}", "run_dir=unused", *overrides])
    launch._derive(config)
    return config


def engine_of(config: DictConfig) -> Any:
    from verl.utils.config import omega_conf_to_dataclass

    from vgr_rl.training.segment_policy import SegmentPolicyCpuFSDPEngine

    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    model_config = omega_conf_to_dataclass(config.actor_rollout_ref.model)
    engine = SegmentPolicyCpuFSDPEngine(model_config, actor.engine, actor.optim, actor.checkpoint)
    engine.initialize()
    return engine


def rollouts(processor: Any, patch: pytest.MonkeyPatch) -> TensorDict:
    from verl.utils.tensordict_utils import list_of_dict_to_tensordict

    from vgr_rl.segment.predict import sam2_picture
    from vgr_rl.training import shared_features
    from vgr_rl.training.prompts import PromptEncoder, extend_position_ids

    encoder = PromptEncoder(processor, prefill="", max_prompt_tokens=256)
    content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
    prompts = {uid: encoder.encode([{"role": "user", "content": content}], [image]) for uid, image in PICTURES.items()}
    stored = {
        shared_features.PARTITION: {uid: prompt.features for uid, prompt in prompts.items()},
        shared_features.PICTURES: {
            uid: {"picture": sam2_picture(image, 64), "size": image.size} for uid, image in PICTURES.items()
        },
    }

    def get(uids: Any, partition: str = shared_features.PARTITION) -> dict[str, Any]:
        return {uid: stored[partition][uid] for uid in uids}

    patch.setattr(shared_features, "get", get)
    rows = []
    for uid, text in zip(PROMPTS, RESPONSES, strict=True):
        response = torch.tensor(processor.tokenizer(text, add_special_tokens=False)["input_ids"])
        prompt = prompts[uid]
        rows.append(
            {
                "input_ids": torch.cat([torch.tensor(prompt.token_ids), response]),
                "position_ids": extend_position_ids(prompt.position_ids, len(response)),
                "responses": response,
                "multi_modal_inputs": shared_features.reference(uid),
            }
        )
    return list_of_dict_to_tensordict(rows)


def main(model: str, out: str) -> None:
    import vgr_rl.plugin  # noqa: F401  as verl loads it

    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    store = torch.distributed.FileStore(f"{out}.store", 1)
    torch.distributed.init_process_group("cpu:gloo", store=store, rank=0, world_size=1)
    from vgr_rl.training.shards import LoraScale, fold_adapter, local_part

    engine = engine_of(config_of(model))
    processor = engine.model_config.get_processor()
    encoded: list[int] = []
    sam2 = engine.module.base_model.model
    original = sam2.embed_images
    sam2.embed_images = lambda pixels: encoded.append(len(pixels)) or original(pixels)
    with pytest.MonkeyPatch.context() as patch:
        data = rollouts(processor, patch)
        with engine.eval_mode():
            whole = engine.decode_masks(data.copy(), 1024)
            once = encoded.copy()
            encoded.clear()
            split = engine.decode_masks(data.copy(), 80)
        with torch.no_grad():
            for name, parameter in engine.module.named_parameters():
                if "lora_B" in name:
                    parameter._local_tensor.normal_(std=0.05)
        with engine.eval_mode():
            trained = engine.decode_masks(data.copy(), 1024)
    state = {name: local_part(weight).clone() for name, weight in engine.module.state_dict().items()}
    folded = fold_adapter(state, LoraScale(engine.model_config.lora_rank, engine.model_config.lora_alpha))
    result = {
        "masks": {"start": whole, "in parts": split, "trained": trained},
        "encoded": {"start": once, "in parts": encoded[:-1]},
        "trains": [name for name, parameter in engine.module.named_parameters() if parameter.requires_grad],
        "weights": folded,
        "served": dict(engine.get_per_tensor_param()[0]),
    }
    torch.save(result, Path(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
