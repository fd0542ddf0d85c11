from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgr_rl.segment.auto import SPECIAL_TOKENS
from vgr_rl.tiny.model import build_processor
from vgr_rl.training.response_text import ResponseDecoder

PLAIN = build_processor("qwen2_5_vl").tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    tokenizer = build_processor("qwen2_5_vl").tokenizer
    tokenizer.add_tokens(list(SPECIAL_TOKENS), special_tokens=True)
    return tokenizer


def test_seg_and_its_companions_stay_and_the_tokens_of_a_chat_go(tokenizer: Any) -> None:
    text = "<think>red is at [SEG].</think><answer><p>red</p> [SEG]</answer>"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    decode: Callable[[list[int]], str] = ResponseDecoder(tokenizer)
    ended = [*ids, tokenizer.eos_token_id, *tokenizer.convert_tokens_to_ids(["<|image_pad|>", "<|im_start|>"])]
    assert decode(ended) == decode(ids) == tokenizer.decode(ids, skip_special_tokens=False)
    assert decode(ids).count("[SEG]") == 2 and "[SEG]" not in tokenizer.decode(ids, skip_special_tokens=True)


@given(st.lists(st.integers(0, len(PLAIN) - 1), max_size=20))
def test_a_model_without_seg_is_read_as_before(ids: list[int]) -> None:
    assert ResponseDecoder(PLAIN)(ids) == PLAIN.decode(ids, skip_special_tokens=True)
