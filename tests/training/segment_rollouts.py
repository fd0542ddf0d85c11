"""Rollouts of an R-Sa2VA about two pictures of different sizes, some of which show the same one."""

from PIL import Image

from vgr_rl.grounding import Size, box_rle

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
