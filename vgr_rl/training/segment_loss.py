"""The loss of R-Sa2VA's cold start (arXiv 2512.05091): cross entropy of the text, and BCE and Dice of the masks.

Numbers of a micro-batch are shares of those of the whole batch: their sum over micro-batches, averaged over processes,
is the batch's. So micro-batches and processes change no gradient.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from verl.utils import tensordict_utils
from verl.workers.utils.losses import sft_loss

from vgr_rl.grounding import Rle, Size
from vgr_rl.grounding.masks import decode, resample
from vgr_rl.segment.losses import mask_loss, resampled, uncertain_points

METRICS = ("lm_loss", "mask_bce", "mask_dice", "mask_iou")


@dataclass(frozen=True, slots=True)
class SegmentLoss:
    """Language loss plus mask loss; a loss function for verl's engines.

    The language loss is a mean over tokens, the mask loss a mean over rows that have masks, of each over its masks.

    Attributes:
        side: true masks are compared at this many pixels a side.
        points: where, number of points a mask.
        per_image: while training each image's masks are drawn to be so many; validation takes each once.
        bce_weight: of the masks' cross entropy.
        dice_weight: of their Dice loss.
    """

    side: int
    points: int
    per_image: int
    bce_weight: float
    dice_weight: float

    def __call__(
        self, model_output: dict[str, Any], data: TensorDict, dp_group: Any = None
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss and its metrics; takes `masks` out of the model's output."""
        masks: Tensor = model_output.pop("masks")
        language, _ = sft_loss(None, model_output, data, dp_group)
        rows = [row["rles"] for row in tensordict_utils.get(data, "true_masks")]
        assert len(masks) == sum(map(len, rows)), "every [SEG] under loss has its true mask; checked before the start"
        ranks = data["dp_size"]
        if not len(masks):
            return language + masks.sum(), {**dict.fromkeys(METRICS, 0.0), "lm_loss": language.item()}
        truth = dense(rows, self.side).to(masks.device)
        with torch.no_grad():
            ious = mask_ious(masks, truth).sum() * ranks / data["all_masks"]
        with torch.random.fork_rng(devices=[masks.device] if masks.is_cuda else []):
            torch.manual_seed(data["step"] + int(data["input_ids"].values().sum()))  # so that a resumed run draws alike
            of_row = [len(row) for row in rows for _ in row]
            if torch.is_grad_enabled():
                chosen = self._chosen(rows).to(masks.device)
                masks, truth, of_row = masks[chosen], truth[chosen], [self.per_image] * len(chosen)
            points = uncertain_points(masks, self.points)
        shares = ranks / data["all_mask_rows"] / torch.tensor(of_row, device=masks.device)
        loss = mask_loss(masks, truth, points, self.bce_weight, self.dice_weight, shares)
        values = (language, loss.bce, loss.dice, ious)
        return language + loss.total, {name: value.item() for name, value in zip(METRICS, values, strict=True)}

    def _chosen(self, rows: Sequence[Sequence[Rle]]) -> Tensor:
        """Draw `per_image` masks of each row that has any; return their places among all."""
        chosen, start = [], 0
        for row in rows:
            if row:
                chosen.append(start + resampled(len(row), self.per_image))
            start += len(row)
        return torch.cat(chosen)


def dense(rows: Sequence[Sequence[Rle]], side: int) -> Tensor:
    """Return the masks of all rows at one size (nearest neighbour), `[masks, side, side]`, bool."""
    size = Size(side, side)
    return torch.from_numpy(decode([resample(rle, size) for row in rows for rle in row]))


def mask_ious(logits: Tensor, truth: Tensor) -> Tensor:
    """Return the IoU of predicted masks, cut at 0, with true ones at the prediction's size (nearest), `[N]`.

    Args:
        logits: `[N, height, width]`.
        truth: bool, `[N, any height, any width]`; two empty masks have 0.
    """
    true = torch.nn.functional.interpolate(truth[:, None].float(), logits.shape[-2:])[:, 0] > 0.5
    found = logits > 0
    shared, union = (found & true).sum((1, 2)), (found | true).sum((1, 2))
    return shared / union.clamp(min=1)


def whole_batch(gathered: Mapping[str, Any]) -> dict[str, float]:
    """Put the metrics of a batch together from their shares, `[processes][micro-batches]` each."""
    return {name: sum(map(sum, gathered[name])) / len(gathered[name]) for name in METRICS}


@dataclass(frozen=True, slots=True)
class ValidatedBatch:
    """The metrics of a batch of validation, and its rows with masks and its masks on all processes."""

    metrics: Mapping[str, float]
    rows: int
    masks: int


def whole_validation(batches: Sequence[ValidatedBatch]) -> dict[str, float]:
    """Average BCE and Dice over rows with masks, IoU over masks, and as verl does the loss of the text over batches."""
    rows, masks = [batch.rows for batch in batches], [batch.masks for batch in batches]
    weights = {"lm_loss": [1] * len(batches), "mask_bce": rows, "mask_dice": rows, "mask_iou": masks}
    return {
        name: sum(batch.metrics[name] * weight for batch, weight in zip(batches, own, strict=True)) / max(sum(own), 1)
        for name, own in weights.items()
    }
