import pytest
import torch

from vgr_rl.tiny.model import build_processor
from vgr_rl.training.policy_mixin import ban_in_place
from vgr_rl.training.vision_tokens import banned_token_ids


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_placeholders_and_boundaries_are_banned_and_nothing_that_a_response_needs(family):
    processor = build_processor(family)
    tokens = processor.tokenizer.convert_ids_to_tokens(banned_token_ids(processor))
    assert {"<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"} <= set(tokens)
    assert not {"<think>", processor.tokenizer.eos_token} & set(tokens)


def test_text_models_ban_nothing():
    assert banned_token_ids(None) == []


def test_banned_tokens_have_no_probability_and_log_probs_stay_finite():
    weight = torch.randn(10, 4, requires_grad=True)
    logits = torch.randn(2, 3, 4) @ weight.T
    free = logits.detach().clone()
    ban_in_place(logits, torch.tensor([1, 5]), vocabulary_size=9)
    log_probs = logits.log_softmax(-1)
    allowed = [0, 2, 3, 4, 6, 7, 8]
    assert torch.isfinite(log_probs).all()
    assert log_probs[..., [1, 5, 9]].exp().sum() == 0
    torch.testing.assert_close(log_probs[..., allowed], free[..., allowed].log_softmax(-1))
    (log_probs[..., 1] * 0 + log_probs[..., 2]).sum().backward()
    assert torch.isfinite(weight.grad).all() and weight.grad[[1, 5, 9]].abs().sum() == 0
