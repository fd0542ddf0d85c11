import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgr_rl.data.tiny_world import GEOMETRY
from vgr_rl.tiny.tokenizer import INTEGERS, SPECIAL_TOKENS, build_tokenizer
from vgr_rl.tiny.traces import LabelNoise, write_trace
from vgr_rl.tiny.world import SIDE, generate

TOKENIZER = build_tokenizer()
NOISE = LabelNoise(reflective=0.5, loose_px=4, jitter=0.5, answer=0.5)


@given(st.text())
def test_any_text_survives_unchanged(text):
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    assert TOKENIZER.decode(ids) == text


@pytest.mark.parametrize("frame", ["model_px", "norm1000"])
def test_the_world_is_written_in_whole_words_and_numbers(frame):
    for scene in generate("sft", 100):
        text = scene.question_with_options + write_trace(scene, GEOMETRY, frame, NOISE, random.Random(scene.id))
        tokens = TOKENIZER.tokenize(text)
        assert TOKENIZER.decode(TOKENIZER.convert_tokens_to_ids(tokens)) == text
        single_bytes = {token for token in tokens if len(token) == 1}
        # Digits, marks, spaces, letters of options; the one word spelt in bytes is the "Is" that opens a question.
        assert single_bytes <= set("0123456789.,?ĠABCD") | set("Is")
        numbers = [token for token in tokens if token.isdigit()]
        assert numbers and {int(number) for number in numbers} <= set(INTEGERS)


def test_every_coordinate_of_both_frames_is_one_token():
    wanted = {*range(SIDE + 1), *(round(1000 * pixel / SIDE) for pixel in range(SIDE + 1))}
    assert wanted <= set(INTEGERS)
    for number in INTEGERS:
        assert TOKENIZER.tokenize(f"[{number},") == ["[", str(number), ","]


def test_a_prefilled_think_tag_does_not_change_what_follows():
    response = "<think>The circle is at <box>[0,4,16,20]</box>. It is red.</think><answer>A</answer>"
    prompt = "<|im_start|>assistant\n"
    whole = TOKENIZER(prompt + response)["input_ids"]
    split = TOKENIZER(prompt + "<think>")["input_ids"] + TOKENIZER(response.removeprefix("<think>"))["input_ids"]
    assert whole == split


def test_special_tokens_are_single_and_skippable():
    for token in SPECIAL_TOKENS:
        assert TOKENIZER.tokenize(f"a{token}b") == ["a", token, "b"]
    ids = TOKENIZER("It is red.<|im_end|>")["input_ids"]
    assert ids[-1] == TOKENIZER.eos_token_id
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == "It is red."


def test_the_chat_template_takes_texts_and_parts_and_every_role():
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "image", "image": "x.png"}, {"type": "text", "text": "What colour?"}]},
        {"role": "assistant", "content": "It is red."},
    ]
    text = TOKENIZER.apply_chat_template(messages, tokenize=False)
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>What colour?<|im_end|>\n"
        "<|im_start|>assistant\nIt is red.<|im_end|>\n"
    )
    prompt = TOKENIZER.apply_chat_template(messages[:2], tokenize=False, add_generation_prompt=True)
    assert text.startswith(prompt) and prompt.endswith("<|im_start|>assistant\n")
