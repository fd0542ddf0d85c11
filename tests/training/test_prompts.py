from types import MethodType

import pytest
import torch
from PIL import Image

from vgr_rl.tiny.model import build_model, build_processor
from vgr_rl.training.prompts import PromptEncoder, extend_position_ids

MESSAGES = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "how many red squares are there"}]}
]
FAMILIES = ["qwen2_5_vl", "qwen3_vl"]


@pytest.fixture(params=FAMILIES)
def processor(request):
    processor = build_processor(request.param)
    model = build_model(request.param).model
    processor.config = model.config
    for name in ("get_rope_index", "get_vision_position_ids"):
        setattr(processor, name, MethodType(getattr(type(model), name), processor))
    return processor


def picture(width=64, height=96):
    return Image.effect_noise((width, height), 60).convert("RGB")


def encoder(processor, **kwargs):
    return PromptEncoder(processor, **{"prefill": "<think>", "max_prompt_tokens": 512} | kwargs)


def test_prompt_is_template_expanded_image_and_prefill(processor):
    prompt = encoder(processor).encode(MESSAGES, [picture()])
    text = processor.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)
    expected = processor(text=[text], images=[picture()])["input_ids"][0]
    prefill = processor.tokenizer("<think>", add_special_tokens=False)["input_ids"]
    assert prefill and prompt.token_ids == list(expected) + prefill
    image_tokens = prompt.token_ids.count(processor.image_token_id)
    assert image_tokens == int(prompt.features["image_grid_thw"].prod()) // 4
    assert len(prompt.image_ids) == 1


@pytest.mark.parametrize("images", [0, 1, 2])
def test_position_ids_equal_the_models_own_on_the_whole_sequence(processor, images):
    content = [{"type": "image"}] * images + [{"type": "text", "text": "how many red squares are there"}]
    prompt = encoder(processor).encode(
        [{"role": "user", "content": content}], [picture(64, 64 + 32 * i) for i in range(images)]
    )
    response = processor.tokenizer("red red red red red", add_special_tokens=False)["input_ids"]
    ids = torch.tensor([prompt.token_ids + response])
    expected, _ = processor.get_rope_index(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        image_grid_thw=prompt.features.get("image_grid_thw"),
        mm_token_type_ids=(ids == processor.image_token_id).int(),
    )
    actual = extend_position_ids(prompt.position_ids, len(response))
    assert torch.equal(actual[0], torch.arange(ids.shape[1]))
    assert torch.equal(actual[1:], expected[:, 0])


def test_position_ids_without_mrope_count_on():
    assert extend_position_ids(torch.arange(3), 2).tolist() == [0, 1, 2, 3, 4]


def test_too_long_prompt_names_the_knob_and_the_need(processor):
    with pytest.raises(ValueError, match=r"data.max_prompt_length=8 but .*\(64, 96\).* needs \d+ tokens"):
        encoder(processor, max_prompt_tokens=8).encode(MESSAGES, [picture()])
