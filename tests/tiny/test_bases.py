"""The models that ship with the package can do what their README says."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

import vgr_rl.tiny
from rewards.accuracy import Accuracy
from rewards.dual_iou import DualIoU
from vgr_rl.data.tiny_world import GEOMETRY, to_sample
from vgr_rl.grounding.frames import model_frame
from vgr_rl.grounding.trace import parse_trace
from vgr_rl.tiny.model import build_model
from vgr_rl.tiny.tokenizer import build_tokenizer
from vgr_rl.tiny.world import generate, render

ASSETS = Path(vgr_rl.tiny.__file__).parent / "assets"
COUNT = 60


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen3_vl"])
def base(request):
    return ASSETS / f"base_{request.param}"


def test_a_base_grounds_on_held_out_scenes(base):
    model, processor = AutoModelForImageTextToText.from_pretrained(base), AutoProcessor.from_pretrained(base)
    frame, scenes = model_frame(model.config.model_type), list(generate("heldout", COUNT, seed=7))
    processor.tokenizer.padding_side = "left"
    prompts = [
        processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": scene.question_with_options}]}],
            add_generation_prompt=True,
            tokenize=False,
        )
        + "<think>"
        for scene in scenes
    ]
    images = [Image.fromarray(render(scene)) for scene in scenes]
    inputs = processor(text=prompts, images=images, padding=True, return_tensors="pt")
    with torch.no_grad():
        output = model.generate(**inputs, max_new_tokens=110, do_sample=False)
    texts = processor.tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    accuracy = dual_iou = 0.0
    for scene, text in zip(scenes, texts, strict=True):
        trace = parse_trace(text, GEOMETRY, frame)
        accuracy += Accuracy()(trace, to_sample(scene)).value / COUNT
        dual_iou += DualIoU()(trace, to_sample(scene)).value / COUNT
    measured = json.loads((base / "training.json").read_text())["greedy_on_500_heldout"]
    # Four standard errors of a mean over 60 scenes.
    assert accuracy > measured["accuracy"] - 0.25
    assert dual_iou > measured["dual_iou"] - 0.2
    assert measured["accuracy"] > 0.65 and measured["dual_iou"] > 0.65, "far above chance: 0.41 and 0.18"


def test_a_base_has_the_architecture_and_vocabulary_of_the_builder_and_is_small(base):
    model = AutoModelForImageTextToText.from_pretrained(base)
    fresh = build_model(base.name.removeprefix("base_"))
    assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in fresh.state_dict().items()}
    assert AutoProcessor.from_pretrained(base).tokenizer.get_vocab() == build_tokenizer().get_vocab()
    assert (base / "model.safetensors").stat().st_size < 4e6
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
