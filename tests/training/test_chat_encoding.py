"""Which tokens a cold start sees and which carry loss, on both tiny families."""

from collections.abc import Sequence

import pytest
from transformers import ProcessorMixin

from vgr_rl.tiny.model import build_processor
from vgr_rl.training.chat_encoding import ChatEncoder

QUESTION = "<image>What colour is the square?"
RESPONSE = "<think>The square <box>[4,8,20,24]</box> is red.</think><answer>A</answer>"
CHAT = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": RESPONSE}]


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen3_vl"])
def processor(request: pytest.FixtureRequest) -> ProcessorMixin:
    return build_processor(request.param)


def _with_loss(processor: ProcessorMixin, ids: Sequence[int], mask: Sequence[int]) -> str:
    return processor.tokenizer.decode([token for token, loss in zip(ids, mask, strict=True) if loss])


def test_loss_falls_on_the_response_and_its_end_token_only(processor: ProcessorMixin) -> None:
    encoded = ChatEncoder(processor, "<think>", loss_on_prefill=True).encode(CHAT, [16])
    assert _with_loss(processor, encoded.input_ids, encoded.loss_mask) == RESPONSE + "<|im_end|>"
    assert encoded.loss_mask == sorted(encoded.loss_mask)  # nothing before the response, everything from there on


def test_the_prefill_can_be_left_out_of_the_loss(processor: ProcessorMixin) -> None:
    encoded = ChatEncoder(processor, "<think>", loss_on_prefill=False).encode(CHAT, [16])
    expected = RESPONSE.removeprefix("<think>") + "<|im_end|>"
    assert _with_loss(processor, encoded.input_ids, encoded.loss_mask) == expected


def test_tokens_are_those_of_a_rollout(processor: ProcessorMixin) -> None:
    """Generation prompt and prefill as separate encodings, then what the policy writes."""
    tokenizer = processor.tokenizer
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION.removeprefix("<image>")}]}],
        add_generation_prompt=True,
        tokenize=False,
    ).replace(processor.image_token, processor.image_token * 16)
    ids = [
        *tokenizer(prompt)["input_ids"],
        *tokenizer("<think>")["input_ids"],
        *tokenizer(RESPONSE.removeprefix("<think>"))["input_ids"],
        tokenizer.eos_token_id,
    ]
    assert ChatEncoder(processor, "<think>", True).encode(CHAT, [16]).input_ids == ids


def test_every_turn_of_the_assistant_carries_loss(processor: ProcessorMixin) -> None:
    turns = [*CHAT, {"role": "user", "content": "How many objects?"}, {"role": "assistant", "content": "2"}]
    encoded = ChatEncoder(processor, "<think>", True).encode(turns, [16])
    assert _with_loss(processor, encoded.input_ids, encoded.loss_mask) == RESPONSE + "<|im_end|>2<|im_end|>"


@pytest.mark.parametrize(
    ("messages", "tokens", "message"),
    [
        (CHAT, [16, 16], "2 images but 1 <image>"),
        (CHAT, [], "stands in the text|images"),
        ([{"role": "user", "content": "What <|image_pad|>?"}, CHAT[1]], [], "stands in the text"),
        ([CHAT[0], {"role": "assistant", "content": "<|image_pad|>"}], [16], "stands in the text"),
    ],
)
def test_images_and_placeholders_must_match(
    processor: ProcessorMixin, messages: list[dict[str, str]], tokens: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ChatEncoder(processor, "<think>", True).encode(messages, tokens)
