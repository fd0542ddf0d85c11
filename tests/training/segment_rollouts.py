"""Rollouts of an R-Sa2VA about two pictures of different sizes, some of which show the same one."""

from typing import Any

from PIL import Image
from torch import Tensor

from vgr_rl.grounding import Size, box_rle
from vgr_rl.segment.predict import sam2_pixels

QUESTION = "where is the [SEG]"  # no mask is made of a [SEG] in a prompt
RESPONSES = ("<think>red [SEG] and [SEG]</think><answer>[SEG]</answer>", "<think>none</think>", "[SEG]", "blue [SEG]")
PICTURES = {
    "a": Image.linear_gradient("L").resize((64, 64)).convert("RGB"),
    "b": Image.radial_gradient("L").resize((96, 64)).convert("RGB"),
}
PROMPTS = ("a", "b", "b", "a")  # of the responses

SQUARE = box_rle((16, 16, 48, 48), Size(64, 64))
STRIPES = [box_rle((0, 0, 96, 16), Size(96, 64)), box_rle((0, 48, 96, 64), Size(96, 64))]
BEST = [([0, 2], [SQUARE]), ([], []), ([0], STRIPES), ([], [])]
"""Of each response: which of its [SEG] the loss of best rollouts takes, and the true masks."""


def plain_masks(model: Any, processor: Any, uid: str, response: str) -> Tensor:
    """Return the logits of a response's masks by the model's own forward pass, `[S, height, width]`."""
    picture, content = PICTURES[uid], [{"type": "image"}, {"type": "text", "text": QUESTION}]
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    inputs = processor(text=[prompt + response], images=[picture], return_tensors="pt")
    start = processor(text=[prompt], images=[picture], return_tensors="pt")["input_ids"].shape[1]
    is_seg = inputs["input_ids"] == model.config.seg_token_id
    is_seg[:, :start] = False
    masks: Tensor = model(image_of_seg=is_seg.long() - 1, sam2_pixels=sam2_pixels([picture], 64), **inputs).masks
    return masks
