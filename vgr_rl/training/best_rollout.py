"""The loss of masks on each group's best rollout, beside the policy's (arXiv 2512.05091; `masks.best_rollout_weight`).

A group's best rollout is the one of the highest reward, the first of several; a failed reward is never the best. It
counts if a mask of its answer is right by the paper's own reward (`mask_iou` above 0): a wrong one may be about another
object. The union of its answer's masks is compared with the union of the true ones, at every pixel of the decoder's
logits. The union's logit is the largest of its masks', so it is cut where the union of the cut masks ends.

The loss is a mean over the best rollouts of an update. As in `segment_loss`, a micro-batch has its share of it: neither
micro-batches nor processes change a gradient.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import torch
from tensordict import TensorDict
from torch import Tensor
from verl.utils import tensordict_utils
from verl.utils.metric import AggregationType, Metric

from rewards.mask_iou import VRTMaskIoU
from vgr_rl.grounding import ImageGeometry, Rle, Sample, parse_trace
from vgr_rl.segment.losses import BCE_WEIGHT, DICE_WEIGHT, pixel_loss
from vgr_rl.training import shared_features
from vgr_rl.training.segment_loss import dense

FIELD = "best_masks"
"""What the trainer stores with every rollout of a step: `BestMasks`."""

_SUMS = "best_rollout_sums/"
_REWARD = VRTMaskIoU()


class BestMasks(TypedDict):
    """What is compared of a rollout: `segs` of its answer (0 for the response's first), and the answer's true masks.

    Both are empty for one without this loss.
    """

    segs: Sequence[int]
    truth: Sequence[Rle]


NONE = BestMasks(segs=(), truth=())


def best_of_groups(keys: Sequence[str], rewards: Sequence[float]) -> list[int]:
    """Return where the best rollout of each group stands; nothing of a group without a reward.

    Args:
        keys: of the rollouts, `<group>_<number>_<turn>`.
        rewards: theirs; not a number if it failed.
    """
    best: dict[str, tuple[float, int, int]] = {}
    for place, (key, reward) in enumerate(zip(keys, rewards, strict=True)):
        group, number, _ = key.rsplit("_", 2)
        rank = (reward, -int(number), place)
        if not math.isnan(reward) and (group not in best or rank > best[group]):
            best[group] = rank
    return [place for _, _, place in best.values()]


def masks_to_learn(response: str, masks: Sequence[Rle] | None, sample: Sample) -> BestMasks:
    """Return what the loss compares of a best rollout; nothing if no mask of its answer is right."""
    geometry = ImageGeometry(sample.image_size, sample.image_size)
    trace = parse_trace(response, geometry, "orig_px", prefill="", masks=masks)
    score = _REWARD(trace, sample)
    if score.status != "ok" or score.value <= 0:
        return NONE
    truth = [target.mask_rle for target in sample.targets if target.role == "answer" and target.mask_rle is not None]
    return BestMasks(segs=trace.seg_answer, truth=truth)


def best_masks(data: TensorDict) -> list[BestMasks]:
    """Return `FIELD` of each row; nothing for verl's padding, which is a copy of a rollout without its picture."""
    inputs = tensordict_utils.get(data, "multi_modal_inputs")
    rows = zip(tensordict_utils.get(data, FIELD), inputs, strict=True)
    return [own if shared_features.referred_uid(shown) else NONE for own, shown in rows]


@dataclass(frozen=True, slots=True)
class BestRolloutLoss:
    """A policy's loss plus that of the best rollouts' masks; a loss function for verl's engines.

    Attributes:
        policy_loss: verl's or ours.
        weight: of the other.
    """

    policy_loss: Callable[..., tuple[Tensor, dict[str, Any]]]
    weight: float

    def __call__(
        self, model_output: dict[str, Any], data: TensorDict, dp_group: Any = None
    ) -> tuple[Tensor, dict[str, Any]]:
        """Return the sum and the metrics of both; takes `masks` out of the model's output."""
        masks: Tensor = model_output.pop("masks")
        policy, metrics = self.policy_loss(model_output=model_output, data=data, dp_group=dp_group)
        best = [own for own in best_masks(data) if own["segs"]]
        assert len(masks) == sum(len(own["segs"]) for own in best), "the answer's [SEG] of best rollouts were decoded"
        ranks, count = data["dp_size"], data["all_best"]
        if best:
            unions = torch.stack([own.amax(0) for own in masks.float().split([len(own["segs"]) for own in best])])
            truth = torch.stack([dense([own["truth"]], masks.shape[-1]).any(0) for own in best]).to(unions)
            loss = pixel_loss(unions.flatten(1), truth.flatten(1), unions.new_full((len(best),), ranks / count))
            sums = {"bce": loss.bce.item() * count, "dice": loss.dice.item() * count, "n": len(best) * ranks}
            total = loss.total
        else:
            sums, total = dict.fromkeys(("bce", "dice", "n"), 0), masks.sum()
        own_metrics = {f"{_SUMS}{name}": Metric(AggregationType.SUM, float(value)) for name, value in sums.items()}
        return policy + self.weight * total, metrics | own_metrics


def loss_metrics(metrics: dict[str, Any]) -> dict[str, float]:
    """Take the sums out of the update's metrics; return the means over best rollouts, nothing if there were none."""
    sums: Mapping[str, float] = {
        name.rsplit("/", 1)[-1]: float(metrics.pop(name)) for name in list(metrics) if _SUMS in name
    }
    if not sums or not sums["n"]:
        return {}
    bce, dice = sums["bce"] / sums["n"], sums["dice"] / sums["n"]
    return {
        "masks/best_rollout_loss": BCE_WEIGHT * bce + DICE_WEIGHT * dice,
        "masks/best_rollout_bce": bce,
        "masks/best_rollout_dice": dice,
    }
