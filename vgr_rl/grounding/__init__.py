"""Frames, image geometry, boxes, samples and the parser that turns a response into a trace.

Everything here is pure: it needs the standard library only (numpy for large box sets, pycocotools for masks), never
torch, Ray or verl.
"""

from vgr_rl.grounding.boxes import area, best_iou, earlier_iou, giou, giou_matrix, intersection, iou, iou_matrix
from vgr_rl.grounding.frames import Box, Frame, ImageGeometry, Size, model_frame
from vgr_rl.grounding.geometry import ResizeRule, smart_resize
from vgr_rl.grounding.masks import Rle, box_rle, check_rle, rle_area, rle_box, rle_iou
from vgr_rl.grounding.sample import AnswerKind, Role, Sample, Target
from vgr_rl.grounding.trace import Trace, TracedBox, parse_trace

__all__ = [
    "AnswerKind",
    "Box",
    "Frame",
    "ImageGeometry",
    "ResizeRule",
    "Rle",
    "Role",
    "Sample",
    "Size",
    "Target",
    "Trace",
    "TracedBox",
    "area",
    "best_iou",
    "box_rle",
    "check_rle",
    "earlier_iou",
    "giou",
    "giou_matrix",
    "intersection",
    "iou",
    "iou_matrix",
    "model_frame",
    "parse_trace",
    "rle_area",
    "rle_box",
    "rle_iou",
    "smart_resize",
]
