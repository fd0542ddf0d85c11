import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from vgr_rl.grounding.frames import Size, model_frame
from vgr_rl.grounding.geometry import ResizeRule
from vgr_rl.tiny.model import MAX_PIXELS, build_model, build_processor, check_family, save_model
from vgr_rl.tiny.world import SIDE, render, scene_at

FAMILIES = ["qwen2_5_vl", "qwen3_vl"]


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param)
    save_model(build_model(request.param, seed=1), request.param, path)
    return path


def inputs_of(processor, image, question="What colour is the circle?"):
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return processor(text=[text], images=[image], return_tensors="pt")


def test_the_saved_folder_loads_with_the_auto_classes(folder):
    model, info = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    processor = AutoProcessor.from_pretrained(folder)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert model_frame(model.config.model_type) == ("model_px" if "2_5" in folder.name else "norm1000")
    text = "Naïve 漢字  <box>[1,2,30,400]</box>\n12345"
    for tokenizer in (processor.tokenizer, AutoTokenizer.from_pretrained(folder)):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
        assert tokenizer.chat_template
    scene = scene_at("train", 0)
    inputs = inputs_of(processor, Image.fromarray(render(scene)))
    with torch.no_grad():
        logits = model(**inputs).logits
        again = build_model(model.config.model_type, seed=1)(**inputs).logits
    assert logits.shape == (1, inputs["input_ids"].shape[1], len(processor.tokenizer))
    assert torch.equal(logits, again)


def test_the_ids_in_the_config_are_those_of_the_tokenizer(folder):
    config = AutoModelForImageTextToText.from_pretrained(folder).config
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.convert_tokens_to_ids("<|image_pad|>") == config.image_token_id
    assert tokenizer.convert_tokens_to_ids("<|video_pad|>") == config.video_token_id
    assert tokenizer.eos_token_id == config.text_config.eos_token_id
    assert tokenizer.pad_token_id == config.text_config.pad_token_id


@pytest.mark.parametrize("family", FAMILIES)
def test_a_picture_of_the_world_keeps_its_size_and_a_photograph_is_bounded(family):
    processor = build_processor(family)
    rule = ResizeRule.from_image_processor(processor.image_processor)
    assert rule.geometry(Size(SIDE, SIDE)).model_size == (SIDE, SIDE)
    assert rule.image_tokens(Size(SIDE, SIDE)) == 16
    for size in [(SIDE, SIDE), (512, 400), (1400, 1411), (33, 21)]:
        image = Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8))
        inputs = inputs_of(processor, image)
        _, rows, columns = inputs["image_grid_thw"][0].tolist()
        geometry = rule.geometry(Size(*size))
        assert (columns * 8, rows * 8) == geometry.model_size
        assert rows * columns * 64 <= MAX_PIXELS
        image_id = processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
        assert (inputs["input_ids"] == image_id).sum() == rule.image_tokens(Size(*size))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_seed_decides_the_weights_and_leaves_the_global_generator_alone(family):
    before = torch.random.get_rng_state()
    first, same, other = (build_model(family, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_an_unknown_family_is_an_error():
    with pytest.raises(ValueError, match="family='llava' is not one of qwen2_5_vl, qwen3_vl"):
        check_family("llava")
