"""Masks at a model's own resolution as bits, 64 pixels a word: for IoU straight from a segmenter's logits."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def pack(dense: "NDArray[np.bool_]") -> "NDArray[np.uint64]":
    """Return masks as bits, `[n, words]` with words = ceil(height * width / 64).

    Args:
        dense: `[n, height, width]`; for a segmenter's logits `logits > 0`, which is sigmoid(logits) > 0.5.

    Example:
        >>> import numpy as np
        >>> pack(np.ones((2, 16, 16), dtype=bool)).shape
        (2, 4)
    """
    import numpy as np

    count, height, width = dense.shape
    words = -(height * width // -64)
    pixels = dense.reshape(count, height * width)
    if missing := words * 64 - height * width:
        pixels = np.pad(pixels, ((0, 0), (0, missing)))
    return np.packbits(pixels, bitorder="little").view(np.uint64).reshape(count, words)


def packed_iou(preds: "NDArray[np.uint64]", targets: "NDArray[np.uint64]") -> list[list[float]]:
    """Return the IoU of every pair of packed masks of one size as `[n][m]`; two empty masks have 0.

    Args:
        preds: `[n, words]`, from `pack`.
        targets: `[m, words]`, from `pack`.

    Raises:
        ValueError: when they have different numbers of words.
    """
    import numpy as np

    if preds.shape[1] != targets.shape[1]:
        raise ValueError(f"masks of {preds.shape[1]} and {targets.shape[1]} words cannot be compared")
    shared = np.bitwise_count(preds[:, None] & targets).sum(axis=-1, dtype=np.uint32)
    pred_areas, target_areas = (np.bitwise_count(masks).sum(axis=-1, dtype=np.uint32) for masks in (preds, targets))
    union = pred_areas[:, None] + target_areas - shared
    ious: list[list[float]] = (shared / np.maximum(union, 1)).tolist()
    return ious
