"""The three coordinate frames a box can be written in, and the exact maps between them.

`orig_px`   pixels of the stored image: ground truth and rewards live here;
`model_px`  pixels of the image after the processor's resize: what Qwen2-VL and Qwen2.5-VL read and write;
`norm1000`  0 to 1000 along each side, whatever the size: what Qwen3-VL reads and writes.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

Frame = Literal["orig_px", "model_px", "norm1000"]
"""Name of the coordinate system that a box is written in."""

Box = tuple[float, float, float, float]
"""`(x1, y1, x2, y2)`, half open, with `x2 > x1` and `y2 > y1`; its unit is the one of its frame."""

FRAMES: tuple[Frame, ...] = ("orig_px", "model_px", "norm1000")

_FRAME_OF_MODEL_TYPE: dict[str, Frame] = {
    "qwen2_vl": "model_px",
    "qwen2_5_vl": "model_px",
    "qwen3_vl": "norm1000",
    "qwen3_vl_moe": "norm1000",
}


class Size(NamedTuple):
    """Width and height of an image in pixels, in this order."""

    width: int
    height: int


@dataclass(frozen=True, slots=True)
class ImageGeometry:
    """Stored size of one image and the size that the model's vision tower sees.

    Boxes are mapped exactly (no rounding) and never clipped: a prediction may leave the image.

    Raises:
        ValueError: when a side is not positive.

    Example:
        >>> geometry = ImageGeometry(orig_size=Size(640, 480), model_size=Size(644, 476))
        >>> geometry.to_orig((0, 0, 644, 476), "model_px")
        (0.0, 0.0, 640.0, 480.0)
    """

    orig_size: Size
    model_size: Size

    def __post_init__(self) -> None:
        for name, size in (("orig_size", self.orig_size), ("model_size", self.model_size)):
            if size[0] < 1 or size[1] < 1:
                raise ValueError(f"{name}={size[0]}x{size[1]} but an image needs at least 1x1 pixels")

    def to_orig(self, box: Box, frame: Frame) -> Box:
        """Map a box written in `frame` to pixels of the stored image.

        Raises:
            ValueError: when `frame` is unknown.
        """
        scale_x, scale_y = self.orig_px_per_unit(frame)
        return box[0] * scale_x, box[1] * scale_y, box[2] * scale_x, box[3] * scale_y

    def from_orig(self, box: Box, frame: Frame) -> Box:
        """Map a box in pixels of the stored image to `frame`, unrounded.

        Raises:
            ValueError: when `frame` is unknown.
        """
        scale_x, scale_y = self.orig_px_per_unit(frame)
        return box[0] / scale_x, box[1] / scale_y, box[2] / scale_x, box[3] / scale_y

    def written(self, box_orig_px: Box, frame: Frame) -> tuple[int, int, int, int]:
        """Round a box to the integers a response in `frame` would contain, at least one unit wide and high.

        A box inside the image stays inside it.

        Raises:
            ValueError: when `frame` is unknown.
        """
        x1, y1, x2, y2 = self.from_orig(box_orig_px, frame)
        right, bottom = max(round(x2), 1), max(round(y2), 1)
        return min(round(x1), right - 1), min(round(y1), bottom - 1), right, bottom

    def orig_px_per_unit(self, frame: Frame) -> tuple[float, float]:
        """Return how many pixels of the stored image one unit of `frame` is, along x and along y.

        Raises:
            ValueError: when `frame` is unknown.
        """
        width, height = self.orig_size
        if frame == "orig_px":
            return 1.0, 1.0
        if frame == "model_px":
            return width / self.model_size[0], height / self.model_size[1]
        if frame == "norm1000":
            return width / 1000, height / 1000
        raise ValueError(f"model.frame={frame!r} but expected one of {', '.join(FRAMES)}")


def model_frame(model_type: str) -> Frame:
    """Return the frame that a model family speaks, from `model_type` of its Hugging Face config.

    Raises:
        ValueError: when the family is unknown; `model.frame` then has to be set.
    """
    if model_type not in _FRAME_OF_MODEL_TYPE:
        raise ValueError(
            f"model_type={model_type!r} has no known box frame (known: {', '.join(sorted(_FRAME_OF_MODEL_TYPE))}); "
            f"set model.frame to one of {', '.join(FRAMES)}"
        )
    return _FRAME_OF_MODEL_TYPE[model_type]
