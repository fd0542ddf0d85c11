"""Builders of the two tiny models: the released architectures, scaled down until a laptop can train them."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from vgr_rl.tiny.tokenizer import END_OF_TEXT, IMAGE_PAD, TURN_END, VIDEO_PAD, VISION_END, VISION_START, build_tokenizer
from vgr_rl.tiny.world import SIDE

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

Family = Literal["qwen2_5_vl", "qwen3_vl"]

PATCH, MERGE = 8, 2
# A picture of the tiny world is used as it is; a photograph is shrunk to at most 256 image tokens.
MIN_PIXELS, MAX_PIXELS = SIDE * SIDE, 256 * 256
HIDDEN, LAYERS, HEAD_DIM, FEED_FORWARD, MAX_LENGTH = 128, 3, 32, 256, 4096
VISION_HIDDEN, VISION_LAYERS, VISION_HEADS, VISION_FEED_FORWARD = 64, 2, 2, 128
# Pictures of the tiny world have 4 x 4 image tokens: with a base of 10 the rotary angles tell them apart.
ROPE_THETA = 10.0


def check_family(family: str) -> Family:
    """Return the family when it is one we build.

    Raises:
        ValueError: naming the families there are.
    """
    if family not in get_args(Family):
        raise ValueError(f"family={family!r} is not one of {', '.join(get_args(Family))}")
    return family  # type: ignore[return-value]


def build_processor(family: Family) -> "ProcessorMixin":
    """Build the family's processor: tokenizer, chat template, image processor (factor 16 px) and video processor."""
    import transformers as hf

    sizes = {"patch_size": PATCH, "merge_size": MERGE, "temporal_patch_size": 2}
    pixels = {"min_pixels": MIN_PIXELS, "max_pixels": MAX_PIXELS}
    tokenizer = build_tokenizer()
    if family == "qwen2_5_vl":
        return hf.Qwen2_5_VLProcessor(
            image_processor=hf.Qwen2VLImageProcessor(**sizes, **pixels),
            tokenizer=tokenizer,
            video_processor=hf.Qwen2VLVideoProcessor(**sizes, **pixels),
            chat_template=tokenizer.chat_template,
        )
    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    return hf.Qwen3VLProcessor(
        image_processor=hf.Qwen2VLImageProcessor(**sizes, **pixels, **half),
        tokenizer=tokenizer,
        video_processor=hf.Qwen3VLVideoProcessor(
            **sizes, **half, size={"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS}
        ),
        chat_template=tokenizer.chat_template,
    )


def build_model(family: Family, seed: int = 0) -> "PreTrainedModel":
    """Build the family's tiny model with random weights in float32, the same for the same seed."""
    import torch
    import transformers as hf

    tokenizer = build_tokenizer()
    config = (_qwen2_5_vl_config if family == "qwen2_5_vl" else _qwen3_vl_config)(tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if family == "qwen2_5_vl":
            model = hf.Qwen2_5_VLForConditionalGeneration(config).float()
        else:
            model = hf.Qwen3VLForConditionalGeneration(config).float()
    model.generation_config = hf.GenerationConfig(
        **_text_token_ids(tokenizer), do_sample=True, temperature=1.0, top_k=0, top_p=1.0
    )
    return model


def save_model(model: "PreTrainedModel", family: Family, folder: Path) -> None:
    """Write weights (safetensors), config, tokenizer, chat template and processor as one model folder.

    Each file appears complete or not at all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as temporary:
        model.save_pretrained(temporary)
        build_processor(family).save_pretrained(temporary)
        for file in Path(temporary).iterdir():
            file.chmod(0o644)
            file.replace(folder / file.name)


def _text_token_ids(tokenizer: Any) -> dict[str, int]:
    end, pad = tokenizer.convert_tokens_to_ids([TURN_END, END_OF_TEXT])
    return {"bos_token_id": pad, "eos_token_id": end, "pad_token_id": pad}


def _vision_token_ids(tokenizer: Any) -> dict[str, int]:
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    ids = tokenizer.convert_tokens_to_ids([IMAGE_PAD, VIDEO_PAD, VISION_START, VISION_END])
    return dict(zip(names, ids, strict=True))


def _text_config(tokenizer: Any, mrope_section: Sequence[int], **rope: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": HIDDEN,
        "intermediate_size": FEED_FORWARD,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HIDDEN // HEAD_DIM,
        "num_key_value_heads": HIDDEN // HEAD_DIM,
        "max_position_embeddings": MAX_LENGTH,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": ROPE_THETA,
            "mrope_section": list(mrope_section),
            **rope,
        },
        "tie_word_embeddings": False,
        **_text_token_ids(tokenizer),
    }


def _vision_config() -> dict[str, Any]:
    return {
        "depth": VISION_LAYERS,
        "hidden_size": VISION_HIDDEN,
        "intermediate_size": VISION_FEED_FORWARD,
        "num_heads": VISION_HEADS,
        "out_hidden_size": HIDDEN,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": 2,
    }


def _qwen2_5_vl_config(tokenizer: Any) -> Any:
    from transformers import Qwen2_5_VLConfig

    return Qwen2_5_VLConfig(
        text_config=_text_config(tokenizer, mrope_section=(4, 6, 6)),
        vision_config={
            **_vision_config(),
            "window_size": SIDE,
            "fullatt_block_indexes": list(range(VISION_LAYERS)),
        },
        tie_word_embeddings=False,
        **_vision_token_ids(tokenizer),
    )


def _qwen3_vl_config(tokenizer: Any) -> Any:
    from transformers import Qwen3VLConfig

    return Qwen3VLConfig(
        text_config={**_text_config(tokenizer, mrope_section=(6, 5, 5), mrope_interleaved=True), "head_dim": HEAD_DIM},
        vision_config={
            **_vision_config(),
            "num_position_embeddings": (SIDE // PATCH) ** 2,
            "deepstack_visual_indexes": [0],
        },
        tie_word_embeddings=False,
        **_vision_token_ids(tokenizer),
    )
