from dataclasses import replace

import pytest
import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils

from vgr_rl.grounding import Rle, Size, box_rle
from vgr_rl.training.segment_loss import (
    METRICS,
    SegmentLoss,
    ValidatedBatch,
    dense,
    mask_ious,
    whole_batch,
    whole_validation,
)

SIZE = Size(20, 10)
LEFT, RIGHT, ALL = (box_rle(box, SIZE) for box in ((0, 0, 10, 10), (10, 0, 20, 10), (0, 0, 20, 10)))
LOSS = SegmentLoss(side=16, points=64, per_image=5, bce_weight=2.0, dice_weight=0.5)


def logits_of(*rles: Rle, certain: float = 9.0) -> torch.Tensor:
    return (dense([rles], 8).float() * 2 - 1) * certain


def batch(rows: list[list[Rle]], **numbers: int) -> tuple[TensorDict, torch.Tensor]:
    """Rows of three tokens, the last two under loss; and log-probs of -1 each."""
    lengths = [torch.zeros(3, dtype=torch.long) for _ in rows]
    ids = torch.nested.as_nested_tensor(lengths, layout=torch.jagged)
    mask = torch.nested.as_nested_tensor([torch.tensor([0, 1, 1]) for _ in rows], layout=torch.jagged)
    data = tensordict_utils.get_tensordict(
        {"input_ids": ids, "loss_mask": mask, "true_masks": [{"rles": row} for row in rows]},
        {"dp_size": 1, "batch_num_tokens": 2 * len(rows), "step": 0, **numbers},
    )
    return data, torch.nested.nested_tensor_from_jagged(-torch.ones(3 * len(rows)), ids.offsets())


def test_the_iou_is_that_of_masks_cut_at_0_at_the_size_of_the_prediction() -> None:
    logits, truth = logits_of(LEFT, ALL, LEFT), dense([[LEFT, LEFT, RIGHT]], 16)
    assert mask_ious(logits, truth).tolist() == [1.0, 0.5, 0.0]


def test_right_masks_leave_the_loss_of_the_text_and_wrong_ones_add_to_it() -> None:
    rows = [[LEFT], [RIGHT, ALL]]
    data, log_probs = batch(rows, all_mask_rows=2, all_masks=3)
    right, metrics = LOSS({"masks": logits_of(LEFT, RIGHT, ALL), "log_probs": log_probs}, data)
    assert 1 < right.item() < 3 and set(metrics) == set(METRICS)  # at the edges a prediction cannot be certain
    assert metrics["lm_loss"] == pytest.approx(1.0) and metrics["mask_iou"] == 1.0
    wrong, worse = LOSS({"masks": logits_of(RIGHT, LEFT, ALL), "log_probs": log_probs}, data)
    assert wrong > right + 5 and worse["mask_iou"] == pytest.approx(1 / 3)


def test_the_shares_of_micro_batches_add_up_to_the_batch() -> None:
    """Every image weighs the same, however many masks it has; numbers of a batch do not depend on how it is cut."""
    rows, logits = [[LEFT], [RIGHT, RIGHT, ALL]], logits_of(RIGHT, RIGHT, RIGHT, ALL, certain=3.0)
    numbers = {"all_mask_rows": 2, "all_masks": 4}
    data, log_probs = batch(rows, **numbers)
    torch.manual_seed(0)
    whole, metrics = LOSS({"masks": logits, "log_probs": log_probs}, data)
    parts = []
    for own, masks in ((rows[:1], logits[:1]), (rows[1:], logits[1:])):
        piece, own_log_probs = batch(own, **numbers)
        tensordict_utils.assign_non_tensor(piece, batch_num_tokens=4)
        parts.append(LOSS({"masks": masks, "log_probs": own_log_probs}, piece))
    assert sum(loss.item() for loss, _ in parts) == pytest.approx(whole.item(), rel=0.1)
    together = whole_batch({name: [[own[name] for _, own in parts]] for name in METRICS})
    assert together["mask_iou"] == pytest.approx(metrics["mask_iou"]) == pytest.approx(3 / 4)
    assert together["mask_bce"] == pytest.approx(metrics["mask_bce"], rel=0.1)
    assert parts[0][0] > 2 * parts[1][0], "the image whose only mask is wrong weighs as much as the other"


@torch.no_grad()
def test_in_validation_every_image_weighs_the_same_however_a_batch_is_cut() -> None:
    rows = [[ALL], [ALL] * 3, [ALL]]
    logits = torch.tensor([-4.0, 1.0, 2.0, 3.0, 0.5])[:, None, None].expand(5, 8, 8)
    numbers = {"all_mask_rows": 3, "all_masks": 5}
    loss = replace(LOSS, points=4096)

    def metrics(*cuts: tuple[int, int, int, int]) -> dict[str, float]:
        parts = []
        for first, last, start, end in cuts:
            data, log_probs = batch(rows[first:last], **numbers)
            parts.append(loss({"masks": logits[start:end], "log_probs": log_probs}, data)[1])
        return whole_batch({name: [[own[name] for own in parts]] for name in METRICS})

    whole, cut = metrics((0, 3, 0, 5)), metrics((0, 1, 0, 1), (1, 3, 1, 5))
    each = metrics((0, 1, 0, 1), (1, 2, 1, 4), (2, 3, 4, 5))
    for name in ("mask_bce", "mask_dice"):
        assert whole[name] == pytest.approx(each[name], rel=0.02) and cut[name] == pytest.approx(each[name], rel=0.02)
    assert whole["mask_iou"] == pytest.approx(cut["mask_iou"]) == pytest.approx(4 / 5)


def test_a_validation_is_the_mean_over_its_masks_and_images_not_over_its_batches() -> None:
    none = dict.fromkeys(METRICS, 0.0)
    few, many = {"lm_loss": 2.0, "mask_bce": 1.0, "mask_dice": 0.5, "mask_iou": 1.0}, {**none, "lm_loss": 1.0}
    found = whole_validation([ValidatedBatch(few, 1, 2), ValidatedBatch(many, 3, 8)])
    assert found == {"lm_loss": 1.5, "mask_bce": 0.25, "mask_dice": 0.125, "mask_iou": 0.2}
    assert whole_validation([ValidatedBatch(none, 0, 0)]) == none


def test_the_same_step_draws_the_same_points_and_leaves_the_state_of_torch_alone() -> None:
    rows, logits = [[LEFT, ALL]], logits_of(RIGHT, ALL, certain=1.0)
    data, log_probs = batch(rows, all_mask_rows=1, all_masks=2)
    state = torch.get_rng_state()
    first, again = (LOSS({"masks": logits, "log_probs": log_probs}, data)[0].item() for _ in range(2))
    assert first == again and torch.equal(torch.get_rng_state(), state)
    tensordict_utils.assign_non_tensor(data, step=1)
    assert LOSS({"masks": logits, "log_probs": log_probs}, data)[0].item() != first


def test_a_micro_batch_without_a_mask_keeps_the_graph() -> None:
    data, log_probs = batch([[]], all_mask_rows=3, all_masks=3)
    masks = torch.zeros(0, 8, 8, requires_grad=True)
    loss, metrics = LOSS({"masks": masks, "log_probs": log_probs}, data)
    loss.backward()
    assert loss.item() == pytest.approx(1.0) and metrics["mask_iou"] == 0.0 and masks.grad is not None
