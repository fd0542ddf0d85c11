"""What trains of R-Sa2VA, what gets adapters, and that the rest stays as it is."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vgr_rl.training.shards import local_part

if TYPE_CHECKING:
    from vgr_rl.segment.model import RSa2VA

PARTS = {
    "vision tower": "vlm.model.visual.",
    "language model": "vlm.",
    "projector": "projector.",
    "mask decoder": "sam2.mask_decoder.",
    "rest of SAM2": "sam2.",
}


class FrozenPartChanged(RuntimeError):
    """A weight that must not train is another than at the start."""


def choose_trained(
    module: "RSa2VA", lora: bool, train_embeddings: bool = False, projector: bool = True, decoder: bool = True
) -> None:
    """Let train what does beside adapters; by default what makes the masks, as in a cold start.

    Args:
        module: R-Sa2VA without adapters.
        lora: whether the language model gets adapters; without them its own weights train.
        train_embeddings: whether embedding and head train beside adapters.
        projector: whether it trains.
        decoder: whether the mask decoder trains.
    """
    module.freeze(train_decoder=decoder)
    module.projector.requires_grad_(projector)
    if not lora:
        for name, parameter in module.vlm.named_parameters():
            parameter.requires_grad_("visual" not in name)
    for embedding in (module.get_input_embeddings(), module.get_output_embeddings()):
        embedding.requires_grad_(train_embeddings or not lora)


def language_linears(module: nn.Module, wanted: str | Sequence[str]) -> list[str]:
    """Return the names of the language model's linear layers that adapters are put on.

    Args:
        module: R-Sa2VA.
        wanted: `all-linear`, or last parts of names such as `q_proj` (`model.target_modules`).

    Raises:
        ValueError: if there is none.
    """
    linears = [
        name for name, part in module.named_modules() if isinstance(part, nn.Linear) and ".language_model." in name
    ]
    if wanted != "all-linear":
        last = {wanted} if isinstance(wanted, str) else set(wanted)
        linears = [name for name in linears if name.rpartition(".")[2] in last]
    if not linears:
        raise ValueError(f"model.target_modules={wanted} but the language model has no such linear layer")
    return linears


def trained_parts(module: nn.Module) -> list[str]:
    """Say for each part of R-Sa2VA, adapted or not, how many of its parameters train."""
    counts = {part: [0, 0, 0] for part in PARTS}
    for name, parameter in module.named_parameters():
        own = name.removeprefix("base_model.model.")
        part = next(part for part, prefix in PARTS.items() if own.startswith(prefix))
        counts[part][0] += parameter.numel() * parameter.requires_grad
        counts[part][1] += parameter.numel()
        counts[part][2] += parameter.numel() * (".lora_" in own)
    lines = []
    for part, (trained, total, adapters) in counts.items():
        inside = f", {adapters:,} of them in adapters" if adapters else ""
        lines.append(f"{part:<15} {trained:,} of {total:,} parameters train{inside}")
    return lines


def frozen_hashes(module: nn.Module) -> dict[str, bytes]:
    """Return a hash of what this process holds of each frozen parameter."""
    return {name: _hash(parameter) for name, parameter in module.named_parameters() if not parameter.requires_grad}


def check_frozen(hashes: dict[str, bytes], module: nn.Module) -> None:
    """Check that frozen parameters are still those of which the hashes were taken.

    Raises:
        FrozenPartChanged: naming those that are not.
    """
    parameters = dict(module.named_parameters())
    changed = [name for name, expected in hashes.items() if _hash(parameters[name]) != expected]
    if changed:
        raise FrozenPartChanged(
            f"{len(changed)} frozen weights differ from those of model.path, among them {', '.join(changed[:3])}: is "
            "the checkpoint that this run continues from another model?"
        )


def _hash(parameter: Tensor) -> bytes:
    own = local_part(parameter.detach()).flatten().contiguous()  # with more processes than rows some hold none
    return hashlib.blake2b(own.view(torch.uint8).cpu().numpy().data, digest_size=16).digest()
