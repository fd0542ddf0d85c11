"""Each CPU layer against the original, forward and backward, on the classes that the policy uses."""

import pytest
import torch
from torch import Tensor, nn
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionPatchEmbed
from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLVisionConfig
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionPatchEmbed

from vgr_rl.cpu import fast_layers

PATCH_VALUES = 3 * 2 * 8 * 8


def _conv3d_forward(self: nn.Module, hidden_states: Tensor) -> Tensor:
    patches = hidden_states.view(-1, 3, self.temporal_patch_size, self.patch_size, self.patch_size)
    return self.proj(patches).view(-1, self.embed_dim)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_patch_embedding_is_the_convolution(family: str) -> None:
    torch.manual_seed(0)
    if family == "qwen2_5_vl":
        layer: nn.Module = Qwen2_5_VisionPatchEmbed(patch_size=8, temporal_patch_size=2, embed_dim=64)
    else:
        layer = Qwen3VLVisionPatchEmbed(Qwen3VLVisionConfig(patch_size=8, temporal_patch_size=2, hidden_size=64))
        nn.init.normal_(layer.proj.bias)
    patches = torch.randn(50, PATCH_VALUES)
    results = []
    for forward in (_conv3d_forward, fast_layers.patch_embedding):
        layer.zero_grad()
        output = forward(layer, patches)
        output.square().sum().backward()
        results.append([output, *(parameter.grad.clone() for parameter in layer.parameters())])
    for original, fast in zip(*results, strict=True):
        torch.testing.assert_close(fast, original, rtol=1e-4, atol=1e-4)


def _rowwise_log_probs(logits: Tensor, labels: Tensor) -> Tensor:
    picked = logits.gather(-1, labels[..., None])[..., 0]
    return picked - torch.stack([row.logsumexp(-1) for row in logits])


@pytest.mark.parametrize("shape", [(7, 11), (3, 5, 11)])
@pytest.mark.parametrize("slice_elements", [1, 25, 2**26])
def test_log_probs_are_those_of_one_row_at_a_time(
    shape: tuple[int, ...], slice_elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast_layers, "_SLICE_ELEMENTS", slice_elements)
    torch.manual_seed(0)
    logits = (10 * torch.randn(shape)).requires_grad_()
    labels = torch.randint(11, shape[:-1])
    weights = torch.randn(shape[:-1])
    results = []
    for function in (_rowwise_log_probs, fast_layers.log_probs_of_labels):
        value = function(logits, labels)
        (gradient,) = torch.autograd.grad((value * weights).sum(), logits)
        results.append((value, gradient))
    torch.testing.assert_close(results[1], results[0])


def test_log_probs_survive_banned_tokens_and_keep_their_number_type() -> None:
    logits = torch.zeros(2, 4, dtype=torch.bfloat16)
    logits[:, 3] = torch.finfo(torch.bfloat16).min
    value = fast_layers.log_probs_of_labels(logits, torch.tensor([0, 3]))
    assert value.dtype == torch.bfloat16
    assert value[0].item() == pytest.approx(-1.0986, abs=5e-3)
    assert value[1] < -1e30


def test_install_replaces_the_originals(monkeypatch: pytest.MonkeyPatch) -> None:
    from verl.utils import torch_functional

    for owner, name in (
        (torch_functional, "logprobs_from_logits_v2"),
        (Qwen2_5_VisionPatchEmbed, "forward"),
        (Qwen3VLVisionPatchEmbed, "forward"),
    ):
        monkeypatch.setattr(owner, name, getattr(owner, name))  # put back after the test
    from transformers.models.qwen2_vl.modeling_qwen2_vl import PatchEmbed

    monkeypatch.setattr(PatchEmbed, "forward", PatchEmbed.forward)
    fast_layers.install()
    logits, labels = torch.randn(4, 9), torch.tensor([1, 2, 3, 4])
    assert torch_functional.logprobs_from_logits_v2 is fast_layers.log_probs_of_labels
    torch.testing.assert_close(
        torch_functional.logprobs_from_logits(logits, labels),
        torch_functional.logprobs_from_logits_naive(logits, labels),
    )
    assert Qwen2_5_VisionPatchEmbed.forward is fast_layers.patch_embedding
