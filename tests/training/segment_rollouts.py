"""Rollouts of an R-Sa2VA about two pictures of different sizes, some of which show the same one."""

from PIL import Image

QUESTION = "where is the [SEG]"  # no mask is made of a [SEG] in a prompt
RESPONSES = ("<think>red [SEG] and [SEG]</think><answer>[SEG]</answer>", "<think>none</think>", "[SEG]", "blue [SEG]")
PICTURES = {
    "a": Image.linear_gradient("L").resize((64, 64)).convert("RGB"),
    "b": Image.radial_gradient("L").resize((96, 64)).convert("RGB"),
}
PROMPTS = ("a", "b", "b", "a")  # of the responses
