import pytest
import torch
from peft import LoraConfig, get_peft_model

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
    with torch.no_grad():
        model.sam2.vision_encoder.neck.convs[0].bias[3] += 1e-6
    with pytest.raises(FrozenPartChanged, match="1 frozen weights .*neck.convs.0.bias"):
        check_frozen(hashes, adapted)
