"""Rewards: pure functions of a parsed response and its sample; they need neither torch nor Ray.

from rewards import TREEVGR
from vgr_rl.grounding import parse_trace

composed = TREEVGR.score(parse_trace(response, geometry, "model_px"), sample)
composed.value, composed.parts, composed.status
"""

from rewards.accuracy import Accuracy
from rewards.box_valid import BoxValid
from rewards.compose import Composed, Composer, RewardSets, Term
from rewards.dual_iou import DualIoU
from rewards.format import Format, SegFormat
from rewards.length import Length
from rewards.load import load_reward
from rewards.mask_iou import DualMaskIoU, VRTMaskIoU
from rewards.mean_ap import MeanAP
from rewards.multi_object import MultiObject
from rewards.no_repeat import NoRepeat
from rewards.presets import PRESETS, load_rewards
from rewards.score import Reward, Score, Status

TREEVGR = Composer.from_config(PRESETS["treevgr"])
"""The reward of TreeVGR (arXiv 2507.07999): accuracy, format and dual IoU, weight 1 each, in [0, 3]."""

VRT = Composer.from_config(PRESETS["vrt"])
"""The reward of VRT (arXiv 2512.05091): its format and its matched masks, weight 1 each; at most 2."""

__all__ = [
    "TREEVGR",
    "VRT",
    "Accuracy",
    "BoxValid",
    "Composed",
    "Composer",
    "DualIoU",
    "DualMaskIoU",
    "Format",
    "Length",
    "MeanAP",
    "MultiObject",
    "NoRepeat",
    "Reward",
    "RewardSets",
    "Score",
    "SegFormat",
    "Status",
    "Term",
    "VRTMaskIoU",
    "load_reward",
    "load_rewards",
]
