"""The size an image has after a Qwen-VL processor's resize, computed without the image or the processor.

One rule, read once from the processor, serves prompts, targets, rewards and pictures alike.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vgr_rl.grounding.frames import ImageGeometry, Size

MAX_ASPECT_RATIO = 200


def smart_resize(size: Size, factor: int, min_pixels: int, max_pixels: int) -> Size:
    """Return the size that Qwen-VL image processors resize an image to.

    Each side is rounded to a multiple of `factor`; an area above `max_pixels` or below `min_pixels` rescales both
    sides by one number first. Equal to `smart_resize` of transformers' `qwen2_vl`.

    Args:
        size: stored size, pixels.
        factor: patch size times merge size, pixels.
        min_pixels: smallest area aimed at, square pixels.
        max_pixels: largest area allowed, square pixels.

    Raises:
        ValueError: when a side is not positive or one is over 200 times the other.
    """
    width, height = size
    if width < 1 or height < 1:
        raise ValueError(f"image size {width}x{height} but both sides must be at least 1 pixel")
    if max(width, height) / min(width, height) > MAX_ASPECT_RATIO:
        raise ValueError(
            f"image size {width}x{height} but the longer side may be at most {MAX_ASPECT_RATIO} times the shorter; "
            "crop the image or leave the sample out"
        )
    new_width, new_height = round(width / factor) * factor, round(height / factor) * factor
    if new_width * new_height > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        new_width = max(factor, math.floor(width / shrink / factor) * factor)
        new_height = max(factor, math.floor(height / shrink / factor) * factor)
    elif new_width * new_height < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        new_width = math.ceil(width * grow / factor) * factor
        new_height = math.ceil(height * grow / factor) * factor
    return Size(new_width, new_height)


@dataclass(frozen=True, slots=True)
class ResizeRule:
    """The numbers of an image processor that decide what size the vision tower sees.

    Attributes:
        factor: patch size times merge size: the side of one image token, pixels.
        min_pixels: smallest area aimed at, square pixels.
        max_pixels: largest area allowed, square pixels.

    Raises:
        ValueError: when the numbers contradict one another.
    """

    factor: int
    min_pixels: int
    max_pixels: int

    def __post_init__(self) -> None:
        if self.factor < 1:
            raise ValueError(f"factor={self.factor} (patch_size x merge_size) but it must be at least 1")
        if not 1 <= self.min_pixels <= self.max_pixels:
            raise ValueError(
                f"min_pixels={self.min_pixels}, max_pixels={self.max_pixels} but 1 <= min_pixels <= max_pixels is "
                "needed; set data.min_pixels and data.max_pixels"
            )

    @classmethod
    def from_image_processor(cls, image_processor: Any) -> "ResizeRule":
        """Read the rule from a Hugging Face image processor of the Qwen-VL kind, fast or slow.

        It must have `patch_size`, `merge_size`, and `size` with `shortest_edge` and `longest_edge` (areas, despite
        their names) or `min_pixels` and `max_pixels`.

        Raises:
            ValueError: when one of these is missing or the processor does not resize.
        """
        name = type(image_processor).__name__
        if not getattr(image_processor, "do_resize", True):
            raise ValueError(f"{name} has do_resize=False but boxes need its resize; set do_resize to true")
        patch_size = getattr(image_processor, "patch_size", None)
        merge_size = getattr(image_processor, "merge_size", None)
        min_pixels = _size_entry(image_processor, "shortest_edge", "min_pixels")
        max_pixels = _size_entry(image_processor, "longest_edge", "max_pixels")
        if patch_size is None or merge_size is None or min_pixels is None or max_pixels is None:
            raise ValueError(
                f"{name} has patch_size={patch_size}, merge_size={merge_size}, min_pixels={min_pixels}, "
                f"max_pixels={max_pixels} but all four are needed; expected a Qwen2-VL, Qwen2.5-VL or Qwen3-VL "
                "image processor in model.path"
            )
        return cls(factor=patch_size * merge_size, min_pixels=min_pixels, max_pixels=max_pixels)

    def geometry(self, orig: Size) -> ImageGeometry:
        """Return the geometry of an image of size `orig` (pixels).

        Raises:
            ValueError: when the processor would refuse the image (aspect ratio above 200).
        """
        orig = Size(*orig)
        return ImageGeometry(orig, smart_resize(orig, self.factor, self.min_pixels, self.max_pixels))

    def image_tokens(self, orig: Size) -> int:
        """Return how many tokens (after the merge) an image of size `orig` (pixels) takes in the prompt."""
        model_size = self.geometry(orig).model_size
        return (model_size.width // self.factor) * (model_size.height // self.factor)


def _size_entry(image_processor: Any, edge: str, pixels: str) -> int | None:
    size = getattr(image_processor, "size", None)
    for key in (edge, pixels):
        value = size.get(key) if isinstance(size, Mapping) else getattr(size, key, None)
        if value is not None:
            return int(value)
    value = getattr(image_processor, pixels, None)
    return None if value is None else int(value)
