"""Rewards: pure functions of a parsed response and its sample; they need neither torch nor Ray.

from rewards import TREEVGR
from vgr_rl.grounding import parse_trace

composed = TREEVGR.score(parse_trace(response, geometry, "model_px"), sample)
composed.value, composed.parts, composed.status
"""

from rewards.accuracy import Accuracy
from rewards.compose import Composed, Composer, RewardSets, Term
from rewards.dual_iou import DualIoU
from rewards.format import Format
from rewards.score import Reward, Score, Status

TREEVGR = Composer((Term("accuracy", Accuracy()), Term("format", Format()), Term("dual_iou", DualIoU())))
"""The reward of TreeVGR (arXiv 2507.07999): accuracy, format and dual IoU, weight 1 each, in [0, 3]."""

__all__ = [
    "TREEVGR",
    "Accuracy",
    "Composed",
    "Composer",
    "DualIoU",
    "Format",
    "Reward",
    "RewardSets",
    "Score",
    "Status",
    "Term",
]
