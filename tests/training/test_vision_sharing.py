import pytest
import torch
from PIL import Image

from vgr_rl.tiny.model import build_model, build_processor
from vgr_rl.training import shared_features, vision_sharing
from vgr_rl.training.vision_sharing import VisionSharing


def group_batch(family, order):
    """Two prompts with images of different sizes, with the rows in `order`."""
    processor = build_processor(family)
    features, ids = {}, {}
    for uid, size in {"a": (64, 64), "b": (96, 64)}.items():
        message = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "red"}]}]
        text = processor.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        output = processor(text=[text], images=[Image.effect_noise(size, 80).convert("RGB")], return_tensors="pt")
        features[uid] = {name: output[name] for name in ("pixel_values", "image_grid_thw")}
        ids[uid] = output["input_ids"][0]
    padded = torch.nn.utils.rnn.pad_sequence([ids[uid] for uid in order], batch_first=True)
    return features, padded


def run(model, ids, inputs):
    model.zero_grad()
    types = (ids == model.config.image_token_id).int()
    logits = model(input_ids=ids, mm_token_type_ids=types, **inputs).logits
    logits.square().mean().backward()
    return logits.detach(), [p.grad.clone() for p in model.model.visual.parameters() if p.grad is not None]


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("order", [["a", "a", "b", "b", "b"], ["b", "a", "b", "a"], ["a", "b"]])
def test_output_and_gradient_equal_one_pass_for_each_row(family, order, monkeypatch):
    features, ids = group_batch(family, order)
    model = build_model(family)
    copies = {name: torch.cat([features[uid][name] for uid in order]) for name in features["a"]}
    logits, gradients = run(model, ids, copies)

    monkeypatch.setattr(shared_features, "get", lambda uids: {uid: features[uid] for uid in uids})
    sharing = VisionSharing(model)
    towers_images = []
    model.model.visual.register_forward_pre_hook(
        lambda _, args, kwargs: towers_images.append(len(kwargs["grid_thw"])), with_kwargs=True
    )
    rows = sharing.resolve([shared_features.reference(uid) for uid in order], torch.device("cpu"))
    shared = {name: torch.cat([row[name] for row in rows if name in row]) for name in features["a"]}
    shared_logits, shared_gradients = run(model, ids, shared)

    assert towers_images == [2]
    torch.testing.assert_close(shared_logits, logits)
    assert len(gradients) == len(shared_gradients) > 10
    for actual, expected in zip(shared_gradients, gradients, strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-3)


def test_each_prompt_is_fetched_once_until_forgotten(monkeypatch):
    features, _ = group_batch("qwen2_5_vl", ["a"])
    fetched = []
    monkeypatch.setattr(
        shared_features, "get", lambda uids: fetched.extend(uids) or {uid: features[uid] for uid in uids}
    )
    sharing = VisionSharing(torch.nn.Linear(1, 1))
    row = shared_features.reference("a")
    sharing.resolve([row, row], torch.device("cpu"))
    sharing.resolve([row], torch.device("cpu"))
    assert fetched == ["a"]
    sharing.forget()
    sharing.resolve([row], torch.device("cpu"))
    assert fetched == ["a", "a"]


def test_rows_without_reference_are_left_alone():
    sharing = VisionSharing(torch.nn.Linear(1, 1))
    inputs = [{"pixel_values": torch.ones(4, 8)}, {}]
    assert sharing.resolve(inputs, torch.device("cpu")) == inputs
    assert vision_sharing.shared_features.referred_uid({}) is None
