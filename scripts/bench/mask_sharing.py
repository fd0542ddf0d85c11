"""Measure what it saves to embed an image once for its group of rollouts; exits 1 below the limit.

`python scripts/bench/mask_sharing.py`: the architecture of SAM2 hiera-tiny, random weights, 1024 x 1024, and a group of
four rollouts with five `[SEG]` each (VRT-Bench has 4.6 objects a sample), decoded from one embedding of their image and
from one for each rollout. The masks must be the same. A larger encoder, such as the paper's hiera-large, saves more.
"""

import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this file's folder would hide the package `rewards`

from transformers import Sam2Config, Sam2Model

from vgr_rl.segment.model import RSa2VA
from vgr_rl.tiny.model import HIDDEN, build_model, build_processor

GROUP, MASKS, LIMIT = 4, 5, 2.5
logger = logging.getLogger(__name__)


@torch.inference_mode()
def main() -> int:
    """Print both times and their ratio, and return the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    vlm, tokenizer = build_model("qwen3_vl"), build_processor("qwen3_vl").tokenizer
    model = RSa2VA.from_parts(vlm, Sam2Model(Sam2Config()), tokenizer).eval()
    pixels = torch.randn(1, 3, model.picture_side, model.picture_side)
    states = torch.randn(GROUP * MASKS, HIDDEN)

    def shared() -> Tensor:
        return model.decode_masks(states, model.embed_images(pixels), torch.zeros(len(states), dtype=torch.long))

    def for_each() -> Tensor:
        rollout = torch.arange(GROUP).repeat_interleave(MASKS)
        return model.decode_masks(states, model.embed_images(pixels.expand(GROUP, -1, -1, -1)), rollout)

    once_s, masks = timed(shared)
    each_s, expected = timed(for_each)
    gap = (masks - expected).abs().max().item()
    ratio = each_s / once_s
    logger.info("one embedding for the group   %6.2f CPU seconds", once_s)
    logger.info("one embedding for each of %d   %6.2f CPU seconds", GROUP, each_s)
    logger.info("%.2f times as fast (limit %s); logits of the masks differ by at most %.1e", ratio, LIMIT, gap)
    return 0 if ratio >= LIMIT and gap < 1e-3 else 1


def timed(call: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Return the CPU seconds and the result of the faster of two calls."""
    found = []
    for _ in range(2):
        start = time.process_time()
        result = call()
        found.append((time.process_time() - start, result))
    return min(found, key=lambda pair: pair[0])


if __name__ == "__main__":
    sys.exit(main())
