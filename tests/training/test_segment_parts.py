from collections.abc import Callable

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from vgr_rl.tiny.segmenter import build_r_sa2va
from vgr_rl.training.segment_parts import (
    FrozenPartChanged,
    check_frozen,
    frozen_hashes,
    language_linears,
    trained_parts,
)


def test_adapters_are_put_on_the_language_model_alone() -> None:
    model, _ = build_r_sa2va("qwen3_vl")
    names = language_linears(model, "all-linear")
    assert len(names) == 3 * 7 and all(name.startswith("vlm.model.language_model.layers.") for name in names)
    assert {name.rpartition(".")[2] for name in language_linears(model, ["q_proj", "up_proj"])} == {"q_proj", "up_proj"}
    with pytest.raises(ValueError, match="model.target_modules=conv"):
        language_linears(model, "conv")


def test_what_trains_is_said_and_what_must_not_is_noticed() -> None:
    model, _ = build_r_sa2va("qwen3_vl")
    model.freeze(train_decoder=True)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=language_linears(model, ["q_proj"])))
    for name in trained:
        model.get_parameter(name).requires_grad_(True)
    lines = trained_parts(adapted)
    assert [line.split()[0] for line in lines] == ["vision", "language", "projector", "mask", "rest"]
    assert " 0 of " in lines[0] and " 0 of " in lines[4]
    adapters = f"{3 * 2 * 2 * 128:,}"
    assert f" {adapters} of " in lines[1] and lines[1].endswith(f", {adapters} of them in adapters")
    assert lines[3].endswith("168,277 of 168,277 parameters train")
    hashes = frozen_hashes(adapted)
    optimizer = torch.optim.AdamW(adapted.parameters(), lr=1.0)
    for parameter in adapted.parameters():
        parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
    optimizer.step()
    check_frozen(hashes, adapted)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("linear.weight", lambda weight: weight[0, 0].add_(1e-6)),
        ("linear.weight", lambda weight: weight.copy_(weight.flip(0))),
        ("norm.weight", lambda weight: weight.mul_(2)),
    ],
)
def test_any_change_of_a_frozen_weight_is_noticed(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    module = nn.ModuleDict({"linear": nn.Linear(3, 4), "norm": nn.LayerNorm(4), "trained": nn.Linear(4, 4)})
    for part in ("linear", "norm"):
        module[part].requires_grad_(False)
    hashes = frozen_hashes(module)
    with torch.no_grad():
        module["trained"].weight.mul_(2)
        check_frozen(hashes, module)
        change(module.get_parameter(name))
    with pytest.raises(FrozenPartChanged, match=f"1 frozen weights .*{name}"):
        check_frozen(hashes, module)


def test_a_process_may_hold_nothing_of_a_frozen_weight() -> None:
    module = nn.ParameterDict({"own": torch.ones(1, 1, 8), "others": torch.zeros(0, 1, 8), "scalar": torch.tensor(1.0)})
    module.requires_grad_(False).to(torch.bfloat16)
    check_frozen(frozen_hashes(module), module)
