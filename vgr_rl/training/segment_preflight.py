"""What can be known about a cold start of R-Sa2VA before training processes start."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from vgr_rl.config.search_path import verl_config_dir
from vgr_rl.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from vgr_rl.segment.model import RSa2VAConfig

_ALIKE = 0.01  # distance of two rows of the head as a share of their length
_UNREAD = ("exclude_modules", "target_parameters", "lora_adapter_path")


def check_adapters(model: DictConfig) -> None:
    """Check that only those settings of adapters are given that R-Sa2VA's engine reads.

    Raises:
        ConfigError: naming the others.
    """
    default: Any = OmegaConf.load(verl_config_dir() / "model" / "hf_model.yaml")
    given = [f"model.{key}" for key in _UNREAD if model.get(key) != default.get(key)]
    given += [f"model.lora.{key}" for key, value in model.lora.items() if value != default.lora.get(key)]
    if unread := [key for key in given if key != "model.lora.dropout"]:
        raise ConfigError(
            f"{', '.join(unread)}: not read for R-Sa2VA; its adapters follow model.lora_rank, model.lora_alpha, "
            "model.lora.dropout and model.target_modules"
        )


def frozen_seg(config: DictConfig, tokenizer: Any) -> str | None:
    """Return a warning when `[SEG]` cannot be learnt: its row of a frozen head is that of another new token."""
    if not config.model.lora_rank or config.masks.train_embeddings:
        return None
    from vgr_rl.segment.auto import SPECIAL_TOKENS

    known = tokenizer.get_vocab()
    tokens = [token for token in SPECIAL_TOKENS if token in known]
    seg, *others = _head_rows(Path(config.model.path).expanduser(), [known[token] for token in tokens])
    alike = [token for token, row in zip(tokens[1:], others, strict=True) if (row - seg).norm() <= _ALIKE * seg.norm()]
    if not alike:
        return None
    return (
        f"the frozen head cannot tell [SEG] from {', '.join(alike)}: their rows are alike; set "
        "masks.train_embeddings=true, or start from a checkpoint in which they are trained"
    )


def trained_beside_adapters(hf_config: "RSa2VAConfig", config: DictConfig) -> int:
    """Count the parameters that train themselves, not through adapters, without weights."""
    import torch

    from vgr_rl.segment.model import RSa2VA
    from vgr_rl.training.segment_parts import choose_trained

    with torch.device("meta"):
        module = RSa2VA(hf_config)
    choose_trained(module, config.model.lora_rank > 0, config.masks.train_embeddings)
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def _head_rows(folder: Path, ids: list[int]) -> "list[Tensor]":
    """Read rows of the head, which may be the embedding's, in float32."""
    from safetensors import safe_open

    for ending in ("lm_head.weight", "embed_tokens.weight"):
        for file in sorted(folder.glob("*.safetensors")):
            with safe_open(file, "pt") as weights:
                for name in weights.keys():  # noqa: SIM118  it is no dictionary
                    if name.endswith(ending):
                        rows = weights.get_slice(name)
                        return [rows[place : place + 1].float()[0] for place in ids]
    raise AssertionError(f"{folder} has no head; its weights were counted before")
