from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText

from vgr_rl.grounding import Size
from vgr_rl.segment.auto import SPECIAL_TOKENS
from vgr_rl.segment.losses import mask_loss, uncertain_points
from vgr_rl.segment.model import RSa2VA, RSa2VAOutput
from vgr_rl.segment.predict import predict, sam2_pixels, to_rles
from vgr_rl.tiny.model import Family, build_model, build_processor, save_model
from vgr_rl.tiny.segmenter import build_r_sa2va, build_sam2

PICTURES = [Image.effect_noise((64, 64), 80).convert("RGB"), Image.radial_gradient("L").resize((64, 64)).convert("RGB")]
RESPONSES = ["<think>the [SEG] and [SEG]</think><answer>[SEG]</answer>", "<think>a</think><answer>the [SEG]</answer>"]


@pytest.fixture(scope="module")
def parts() -> Any:
    model, processor = build_r_sa2va("qwen3_vl")
    return model.eval(), processor


def batch(processor: Any, responses: list[str] = RESPONSES) -> dict[str, Any]:
    """The inputs of responses to a prompt that has a [SEG] of its own."""
    start = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>[SEG]<|im_end|>\n<|im_start|>assistant\n"
    inputs = processor(
        text=[start + text for text in responses],
        images=PICTURES[: len(responses)],
        padding=True,
        padding_side="right",
        return_tensors="pt",
    )
    turn, seg = processor.tokenizer.convert_tokens_to_ids(["<|im_start|>", "[SEG]"])
    image_of_seg = torch.full_like(inputs["input_ids"], -1)
    for row, ids in enumerate(inputs["input_ids"]):
        assistant = int((ids == turn).nonzero()[-1])
        image_of_seg[row, assistant:][ids[assistant:] == seg] = row
    return {**inputs, "image_of_seg": image_of_seg}


def run(model: RSa2VA, inputs: dict[str, Any]) -> RSa2VAOutput:
    features = model.embed_images(sam2_pixels(PICTURES, model.picture_side))
    output: RSa2VAOutput = model(image_features=features, **inputs)
    return output


def test_each_seg_of_the_responses_is_one_mask(parts: Any) -> None:
    model, processor = parts
    output = run(model, batch(processor))
    assert output.masks.shape == (4, 16, 16) and output.image_of_mask.tolist() == [0, 0, 0, 1]
    assert output.logits.shape[:2] == batch(processor)["input_ids"].shape
    assert len({tuple(mask.flatten().tolist()) for mask in output.masks}) == 4
    none = run(model, batch(processor, ["<think>a</think><answer>b</answer>"]))
    assert none.masks.shape == (0, 16, 16)


def test_masks_are_those_of_the_hidden_state_at_the_seg_alone(parts: Any) -> None:
    """What stands behind a [SEG] changes nothing, what stands before it does; other rows change nothing either."""
    model, processor = parts
    whole = run(model, batch(processor)).masks
    alone = run(model, batch(processor, RESPONSES[:1])).masks
    shorter = run(model, batch(processor, ["<think>the [SEG]"])).masks
    other = run(model, batch(processor, ["<think>a [SEG]"])).masks
    torch.testing.assert_close(whole[:3], alone)
    torch.testing.assert_close(whole[:1], shorter)
    assert (other - shorter).abs().max() > 1e-4
    inputs = batch(processor, ["<think>the [SEG]"])
    del inputs["image_of_seg"]
    last = model.vlm(**inputs, output_hidden_states=True).hidden_states[-1][:, -1]
    features = model.embed_images(sam2_pixels(PICTURES[:1], model.picture_side))
    torch.testing.assert_close(model.decode_masks(last, features, torch.tensor([0])), shorter)


def test_masks_do_not_depend_on_how_many_are_decoded_at_a_time(parts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = parts
    together = run(model, batch(processor)).masks
    monkeypatch.setattr("vgr_rl.segment.model._PIXELS", 1)
    torch.testing.assert_close(run(model, batch(processor)).masks, together)


@pytest.mark.parametrize(
    "part", ["projector.2", "vlm.model.language_model.layers.0", "sam2.mask_decoder", "vlm.model.visual"]
)
def test_masks_change_with_the_weights_of_every_part(parts: Any, part: str) -> None:
    model, processor = parts
    inputs = batch(processor, RESPONSES[:1])
    before = run(model, inputs).masks
    module = model.get_submodule(part)
    saved = {name: value.clone() for name, value in module.state_dict().items()}
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.5)
    changed = run(model, inputs).masks
    module.load_state_dict(saved)
    assert (changed - before).abs().max() > 1e-4
    torch.testing.assert_close(run(model, inputs).masks, before, rtol=0, atol=0)


def test_exactly_the_projector_and_in_sft_the_decoder_train(parts: Any) -> None:
    model, processor = parts
    for train_decoder in (True, False):
        model.freeze(train_decoder)
        model.zero_grad(set_to_none=True)
        masks = run(model, batch(processor)).masks
        mask_loss(masks, torch.ones_like(masks)).total.backward()
        trained = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        parts_trained = {".".join(name.split(".")[: 2 if name.startswith("sam2") else 1]) for name in trained}
        assert parts_trained == ({"projector", "sam2.mask_decoder"} if train_decoder else {"projector"})
        assert {name for name in trained if name.startswith("projector")} == {
            f"projector.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")
        }
        assert ("sam2.mask_decoder.conv_s0.weight" in trained) == train_decoder, (
            "though the image is embedded without it"
        )
    model.zero_grad(set_to_none=True)
    mask_loss(run(model, batch(processor, ["<think>a"])).masks, torch.zeros(0, 16, 16)).total.backward()
    gradients = [p.grad for p in model.projector.parameters()]
    assert all(grad is not None and not grad.any() for grad in gradients), "without a [SEG]: 0, as other workers wait"
    model.requires_grad_(True)
    masks = run(model, batch(processor)).masks
    mask_loss(masks, torch.ones_like(masks)).total.backward()
    assert model.vlm.model.language_model.embed_tokens.weight.grad[model.config.seg_token_id].abs().sum() > 0
    assert all(p.grad is None for p in model.sam2.vision_encoder.parameters())
    model.zero_grad(set_to_none=True)


@pytest.mark.parametrize(("family", "tied"), [("qwen3_vl", True), ("qwen2_5_vl", False)])
def test_a_saved_model_is_the_same_when_loaded(tmp_path: Path, family: Family, tied: bool) -> None:
    processor, vlm = build_processor(family), build_model(family)
    if tied:
        config = vlm.config
        config.tie_word_embeddings = config.text_config.tie_word_embeddings = True
        vlm = AutoModelForImageTextToText.from_config(config)
    model = RSa2VA.from_parts(vlm, build_sam2(), processor.tokenizer, multimask=tied).eval()
    model.save_pretrained(tmp_path)
    assert [file.name for file in tmp_path.glob("*.safetensors")] == ["model.safetensors"]
    again = RSa2VA.from_pretrained(tmp_path).eval()
    state, loaded = model.state_dict(), again.state_dict()
    assert state.keys() == loaded.keys() and all(torch.equal(state[key], loaded[key]) for key in state)
    assert again.config.multimask == tied
    embedding, head = again.get_input_embeddings().weight, again.get_output_embeddings().weight
    assert (embedding.data_ptr() == head.data_ptr()) == tied
    inputs = batch(processor)
    torch.testing.assert_close(run(again, inputs).masks, run(model, inputs).masks, rtol=0, atol=1e-6)


def test_the_parts_are_loaded_from_their_checkpoints(tmp_path: Path) -> None:
    save_model(build_model("qwen3_vl"), "qwen3_vl", tmp_path / "vlm")
    build_sam2().save_pretrained(tmp_path / "sam2")
    model, processor = RSa2VA.from_checkpoints(tmp_path / "vlm", tmp_path / "sam2")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16} and model.config.multimask
    embedding = build_model("qwen3_vl").get_input_embeddings().weight
    assert torch.equal(model.get_input_embeddings().weight[: len(embedding)], embedding.bfloat16())
    masks = run(model.eval(), batch(processor)).masks
    assert masks.shape == (4, 16, 16) and masks.isfinite().all()


def test_special_tokens_are_single_tokens_with_rows_of_their_own(parts: Any) -> None:
    model, processor = parts
    ids = [processor.tokenizer(token, add_special_tokens=False)["input_ids"] for token in SPECIAL_TOKENS]
    assert all(len(own) == 1 for own in ids) and model.config.seg_token_id == ids[0][0]
    assert model.get_input_embeddings().num_embeddings >= len(processor.tokenizer)


def test_a_prediction_has_text_and_masks_of_reasoning_and_answer(parts: Any) -> None:
    model, processor = parts
    picture, said = PICTURES[0].resize((96, 64)), RESPONSES[0]
    script = processor.tokenizer(said, add_special_tokens=False)["input_ids"] + [processor.tokenizer.eos_token_id]

    def next_token(_row: int, ids: Tensor) -> list[int]:
        return [script[len(ids) - starts[0]]] if starts else [starts.append(len(ids)) or script[0]]

    starts: list[int] = []
    result = predict(model, processor, picture, "Which?", "You point.", prefix_allowed_tokens_fn=next_token)
    assert result.text == said
    assert (len(result.masks), result.reasoning, result.answer) == (3, result.masks[:2], result.masks[2:])
    assert all(mask["size"] == [64, 96] for mask in result.masks)
    starts.clear()
    features = model.embed_images(sam2_pixels([picture], model.picture_side))
    known = predict(
        model, processor, picture, "Which?", "You point.", features=features, prefix_allowed_tokens_fn=next_token
    )
    assert known == result
    free = predict(model, processor, picture, "Which?", max_new_tokens=3)
    assert free.text and free.masks == ()


def test_one_embedding_serves_all_responses_about_an_image(parts: Any) -> None:
    model, _ = parts
    states, both = torch.randn(6, 128), model.embed_images(sam2_pixels(PICTURES, model.picture_side))
    of_seg = torch.tensor([0, 1, 0, 0, 1, 0])
    together = model.decode_masks(states, both, of_seg)
    for place, image in enumerate(of_seg.tolist()):
        own = model.embed_images(sam2_pixels([PICTURES[image]], model.picture_side))
        single = model.decode_masks(states[place : place + 1], own, torch.tensor([0]))
        torch.testing.assert_close(together[place : place + 1], single, rtol=1e-4, atol=1e-4)


def test_pixels_are_resized_straight_and_normalised() -> None:
    pixels = sam2_pixels([Image.new("RGB", (30, 90), (255, 0, 128))], 16)
    assert pixels.shape == (1, 3, 16, 16)
    expected = [(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (128 / 255 - 0.406) / 0.225]
    torch.testing.assert_close(pixels[0, :, 3, 5], torch.tensor(expected))


def test_logits_become_run_lengths_at_their_own_size_or_the_pictures() -> None:
    logits = torch.full((1, 4, 4), -1.0)
    logits[0, :, 2:] = 1.0
    assert to_rles(logits) == [{"size": [4, 4], "counts": "88"}]
    assert to_rles(logits, Size(8, 2)) == [{"size": [2, 8], "counts": "88"}]
    assert to_rles(logits[:0]) == []


def test_projector_and_decoder_learn_two_masks_of_a_picture() -> None:
    torch.manual_seed(0)
    model, _ = build_r_sa2va("qwen3_vl")
    model.freeze(train_decoder=True)
    features, states = model.embed_images(sam2_pixels(PICTURES[:1], model.picture_side)), torch.randn(2, 128)
    truth = torch.zeros(2, 16, 16)
    truth[0, 2:8, 3:9], truth[1, 9:15, 6:14] = 1, 1
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    for _ in range(40):
        masks = model.decode_masks(states, features, torch.zeros(2, dtype=torch.long))
        loss = mask_loss(masks, truth, uncertain_points(masks, 1000))
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    overlap = ((masks > 0) & (truth > 0)).sum((1, 2)) / ((masks > 0) | (truth > 0)).sum((1, 2))
    assert overlap.min() > 0.6
