"""A tiny R-Sa2VA: the tiny vision-language models, and SAM2 scaled down alike, by default with random weights."""

from typing import TYPE_CHECKING

from vgr_rl.tiny.model import Family, build_model, build_processor
from vgr_rl.tiny.world import SIDE

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin, Sam2Model

    from vgr_rl.segment.model import RSa2VA

SAM2_HIDDEN = 64


def build_sam2(seed: int = 0) -> "Sam2Model":
    """Build a SAM2 for pictures of the tiny world, whose masks have a quarter of their side."""
    import torch
    from transformers import Sam2Config, Sam2Model

    grid = SIDE // 4
    start = {"initializer_range": 0.1}  # at the 0.02 of the large model, masks of so few channels hardly differ from 0
    config = Sam2Config(
        vision_config={
            "backbone_config": {
                **start,
                "hidden_size": 16,
                "image_size": [SIDE, SIDE],
                "blocks_per_stage": [1, 1, 2, 1],
                "embed_dim_per_stage": [16, 32, 64, 128],
                "num_attention_heads_per_stage": [1, 2, 4, 8],
                "window_size_per_stage": [4, 4, 4, 2],
                "window_positional_embedding_background_size": [4, 4],
                "global_attention_blocks": [3],
            },
            "backbone_channel_list": [128, 64, 32, 16],
            "backbone_feature_sizes": [[grid, grid], [grid // 2, grid // 2], [grid // 4, grid // 4]],
            "fpn_hidden_size": SAM2_HIDDEN,
            **start,
        },
        prompt_encoder_config={"hidden_size": SAM2_HIDDEN, "image_size": SIDE, "patch_size": 16},
        mask_decoder_config={
            "hidden_size": SAM2_HIDDEN,
            "mlp_dim": 128,
            "num_attention_heads": 4,
            "iou_head_hidden_dim": SAM2_HIDDEN,
            "dynamic_multimask_via_stability": False,  # the shipped one is trained on the mask for one object alone
        },
        **start,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Sam2Model(config)


def build_r_sa2va(
    family: Family, seed: int = 0, vlm: "PreTrainedModel | None" = None, sam2: "Sam2Model | None" = None
) -> "tuple[RSa2VA, ProcessorMixin]":
    """Build the model and its processor, the same for the same seed; `vlm` and `sam2` become its parts."""
    import torch

    from vgr_rl.segment.model import RSa2VA

    processor = build_processor(family)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vlm = build_model(family, seed) if vlm is None else vlm
        sam2 = build_sam2(seed) if sam2 is None else sam2
        model = RSa2VA.from_parts(vlm, sam2, processor.tokenizer, multimask=False)
    return model, processor
