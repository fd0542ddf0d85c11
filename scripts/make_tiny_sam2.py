"""Train the tiny SAM2 that the project ships, from random weights, and measure it on held-out scenes.

Run it as `OMP_NUM_THREADS=1 python scripts/make_tiny_sam2.py --out vgr_rl/tiny/assets/sam2`. As the published SAM2 it
finds the object that a box or a point shows, and knows nothing of names. Plain PyTorch, as `make_tiny_base.py`.
"""

import argparse
import logging
import random
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from scripts.tiny_training import Learner, add_arguments, write_record
from vgr_rl.grounding import Rle, Size, rle_iou
from vgr_rl.grounding.masks import encode
from vgr_rl.segment.losses import mask_loss
from vgr_rl.segment.predict import sam2_pixels
from vgr_rl.segment.prompted import PromptedSam2
from vgr_rl.tiny.segmenter import build_sam2
from vgr_rl.tiny.world import SIDE, Scene, Shape, generate, render, scene_at, shape_mask

logger = logging.getLogger("make_tiny_sam2")

OBJECTS, JITTER, POINTS = 2, 2, 512
"""Objects of a picture, how far the sides of a box are off at most (pixels), and points of the loss of a mask."""


def box_of(shape: Shape, rng: random.Random) -> list[float]:
    """Return the box of an object, each side off by up to `JITTER` pixels."""
    return [min(SIDE, max(0, side + rng.uniform(-JITTER, JITTER))) for side in shape.box_orig_px]


def point_of(mask: np.ndarray, rng: random.Random) -> list[float]:
    """Return the middle of a pixel of an object."""
    row, column = rng.choice(np.argwhere(mask).tolist())
    return [column + 0.5, row + 0.5]


def prompts_of(chosen: list[list[Shape]], truth: np.ndarray, rng: random.Random) -> dict[str, Tensor]:
    """Ask for objects by boxes or, as often, by points; `[B, OBJECTS, …]` as `Sam2Model` takes them."""
    if rng.random() < 0.5:
        return {"input_boxes": torch.tensor([[box_of(shape, rng) for shape in own] for own in chosen])}
    points = torch.tensor([[[point_of(mask, rng)] for mask in masks] for masks in truth])
    return {"input_points": points, "input_labels": torch.ones(points.shape[:3], dtype=torch.int32)}


def train(model: Any, args: argparse.Namespace) -> None:
    """Minimise the mask loss of R-Sa2VA at points anywhere: AdamW, linear warm-up, cosine to a twentieth."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.01, fused=True)
    learner = Learner(optimizer, args, warmup=100)
    rng = random.Random(f"sam2/{args.seed}")
    torch.manual_seed(args.seed)
    model.train()
    for step in range(args.steps):
        scenes = [scene_at("base", place, args.seed) for place in range(step * args.batch, (step + 1) * args.batch)]
        chosen = [rng.choices(scene.shapes, k=OBJECTS) for scene in scenes]
        truth = np.stack([[shape_mask(shape) for shape in own] for own in chosen])
        asked = prompts_of(chosen, truth, rng)
        logits = model(pixel_values=pixels_of(scenes), multimask_output=False, **asked).pred_masks.flatten(0, 2)
        points = torch.rand(len(logits), POINTS, 2)  # at uncertain ones alone it takes 1,500 steps to begin to learn
        learner.learn(mask_loss(logits, torch.from_numpy(truth).flatten(0, 1), points).total)


def pixels_of(scenes: list[Scene]) -> Tensor:
    """Paint scenes, `[B, 3, SIDE, SIDE]`."""
    return sam2_pixels([Image.fromarray(render(scene)) for scene in scenes], SIDE)


def evaluate(folder: Path, count: int) -> dict[str, float]:
    """Return the mean IoU of every object of held-out scenes, asked by its exact box, and by the middle of it."""
    sam2, size = PromptedSam2(str(folder)), Size(SIDE, SIDE)
    ious: dict[str, list[float]] = {"box": [], "point": []}
    for scene in generate("heldout", count):
        (embedding,) = sam2.embed([Image.fromarray(render(scene))])
        truth = encode(np.stack([shape_mask(shape) for shape in scene.shapes]))
        boxes = [shape.box_orig_px for shape in scene.shapes]
        for kind, prompts in (("box", boxes), ("point", [((x1 + x2) / 2, (y1 + y2) / 2) for x1, y1, x2, y2 in boxes])):
            ious[kind] += map(_iou, sam2.masks(embedding, size, prompts), truth)
    return {f"{kind}_miou": round(sum(values) / len(values), 4) for kind, values in ious.items()}


def _iou(first: Rle, second: Rle) -> float:
    return float(rle_iou([first], [second])[0][0])


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser, steps=4000)
    return parser.parse_args()


def main() -> None:
    """Train, save, measure."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    args = parse_args()
    model = build_sam2(args.seed)
    start = time.process_time()
    train(model, args)
    seconds = time.process_time() - start
    model.save_pretrained(args.out)
    write_record(args, seconds, {f"on_{args.heldout}_heldout": evaluate(args.out, args.heldout)})


if __name__ == "__main__":
    main()
