"""The mask losses of R-Sa2VA (arXiv 2512.05091): cross entropy and Dice on sampled points, mostly uncertain ones.

Points are sampled as in PointRend (arXiv 1912.08193). Shapes: N masks, P points.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

POINTS, OVERSAMPLE, IMPORTANCE = 12_544, 3, 0.75
MASKS_AN_IMAGE = 5
BCE_WEIGHT, DICE_WEIGHT, DICE_EPS = 2.0, 0.5, 1.0


class MaskLoss(NamedTuple):
    """The weighted sum and its two terms, scalars: sums of the masks' own, of `bce` the mean over points."""

    total: Tensor
    bce: Tensor
    dice: Tensor


def mask_loss(
    logits: Tensor,
    targets: Tensor,
    points: Tensor | None = None,
    bce_weight: float = BCE_WEIGHT,
    dice_weight: float = DICE_WEIGHT,
    shares: Tensor | None = None,
) -> MaskLoss:
    """Compare predicted with true masks at points; without a mask the loss is 0 and keeps its graph.

    Args:
        logits: `[N, height, width]`.
        targets: 0 or 1, `[N, any height, any width]`.
        points: where, `[N, P, 2]`, x and y from 0 to 1; by default `uncertain_points`.
        bce_weight: of the cross entropy.
        dice_weight: of the Dice loss `1 - (2 sum(p t) + 1) / (sum p + sum t + 1)`.
        shares: what each mask counts, `[N]`; by default 1 / N, which makes both terms means.
    """
    if not len(logits):
        return MaskLoss(*[logits.sum()] * 3)
    logits, targets = logits.float(), targets.float()
    points = uncertain_points(logits) if points is None else points
    with torch.no_grad():
        truth = values_at(targets, points)
    shares = logits.new_full((len(logits),), 1 / len(logits)) if shares is None else shares
    return pixel_loss(values_at(logits, points), truth, shares, bce_weight, dice_weight)


def pixel_loss(
    logits: Tensor,
    truth: Tensor,
    shares: Tensor,
    bce_weight: float = BCE_WEIGHT,
    dice_weight: float = DICE_WEIGHT,
) -> MaskLoss:
    """Compare predicted with true masks where both are given, `[N, P]`; see `mask_loss`."""
    bce = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(1) @ shares
    inside = logits.sigmoid()
    overlap, sizes = (inside * truth).sum(1), inside.sum(1) + truth.sum(1)
    dice = (1 - (2 * overlap + DICE_EPS) / (sizes + DICE_EPS)) @ shares
    return MaskLoss(bce_weight * bce + dice_weight * dice, bce, dice)


@torch.no_grad()
def uncertain_points(
    logits: Tensor, count: int = POINTS, oversample: int = OVERSAMPLE, importance: float = IMPORTANCE
) -> Tensor:
    """Draw points of each mask, `[N, count, 2]`: a share of them where its logit is nearest to 0, the rest anywhere.

    Args:
        logits: `[N, height, width]`.
        count: points of a mask.
        oversample: how many times as many candidates the uncertain ones are taken of.
        importance: their share.
    """
    uncertain = int(importance * count)
    candidates = torch.rand(len(logits), count * oversample, 2, device=logits.device)
    chosen = values_at(logits, candidates).abs().topk(uncertain, dim=1, largest=False).indices
    anywhere = torch.rand(len(logits), count - uncertain, 2, device=logits.device)
    return torch.cat([candidates.gather(1, chosen[..., None].expand(-1, -1, 2)), anywhere], dim=1)


def values_at(maps: Tensor, points: Tensor) -> Tensor:
    """Interpolate `[N, height, width]` at `[N, P, 2]` (x and y from 0 to 1); return `[N, P]`."""
    return F.grid_sample(maps[:, None], 2 * points[:, None] - 1, align_corners=False)[:, 0, 0]


def resampled(count: int, wanted: int = MASKS_AN_IMAGE) -> Tensor:
    """Draw which of an image's masks the loss takes, `[wanted]`: without repeats, or all of them as evenly as it goes.

    So an image with many objects weighs as much as one with few. `count` must be positive.
    """
    rounds = -(-wanted // count)
    return torch.cat([torch.randperm(count) for _ in range(rounds)])[:wanted]
