"""Masks as COCO run lengths: checked once where they are read, compared without ever being decoded.

`check_rle` is for whatever comes from a file or from somebody else's code. Every other function trusts its masks:
pycocotools neither ends nor stays inside its memory on counts that contradict their size.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vgr_rl.grounding.frames import Box, Size

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Rle = dict[str, Any]
"""COCO run lengths of one mask: `size` [height, width] and `counts`, column by column, as COCO's compressed text."""

_MAX_AREA, _MAX_DIGITS = 2**29, 6
"""Runs below this area differ by numbers of at most six digits in base 32; pycocotools misreads longer ones."""


def check_rle(value: object, size: Size | None = None, *, where: str = "mask") -> Rle:
    """Return a mask from outside in the one form that the rest of this module takes, which also is JSON.

    Args:
        value: a mapping with `size` [height, width] and `counts`: COCO's compressed text (str or bytes), or a list of
            run lengths that starts with the background. Other keys are left out.
        size: size of the image that the mask must have, pixels; None takes any.
        where: what the mask is called in error messages.

    Raises:
        ValueError: when a key is missing, the size is not two positive sides of the image, or the counts cannot be
            read or do not add up to height x width.

    Example:
        >>> check_rle({"size": [2, 3], "counts": [2, 3, 1]}, Size(3, 2))
        {'size': [2, 3], 'counts': '231'}
    """
    if not isinstance(value, Mapping) or "size" not in value or "counts" not in value:
        given = f"has keys {list(value)}" if isinstance(value, Mapping) else f"is a {type(value).__name__}"
        raise ValueError(f"{where} {given} but expected a mapping with size and counts (COCO run lengths)")
    height, width = _checked_size(value["size"], size, where)
    counts = value["counts"]
    if isinstance(counts, bytes):
        counts = counts.decode("latin-1")
    if isinstance(counts, str):
        try:
            runs = _runs(counts)
        except ValueError as error:
            raise ValueError(f"{where}.counts={_shortened(counts)} {error}") from None
    elif isinstance(counts, list):
        runs = _runs_of_list(counts, height * width, where)
    else:
        raise ValueError(f"{where}.counts is a {type(counts).__name__} but expected text or a list of run lengths")
    if (total := int(runs.sum())) != height * width:
        raise ValueError(
            f"{where}.counts={_shortened(counts)} has {total} pixels but size={[height, width]} has {height * width}"
        )
    if (shortest := int(runs.min())) < 0:
        raise ValueError(f"{where}.counts={_shortened(counts)} has a run of {shortest} pixels")
    if isinstance(counts, str) and runs[1:].all():
        return {"size": [height, width], "counts": counts}
    return _from_toggles(runs[:-1].cumsum(), height, width)  # also joins runs around an empty one


def rle_area(rle: Rle) -> int:
    """Return the area of a mask, square pixels."""
    from pycocotools import mask

    return int(mask.area(rle))


def rle_box(rle: Rle) -> Box | None:
    """Return the smallest box around a mask, half open, in pixels of the mask; None when the mask is empty.

    Example:
        >>> rle_box(box_rle((2, 1, 5, 3), Size(10, 10)))
        (2.0, 1.0, 5.0, 3.0)
    """
    from pycocotools import mask

    x, y, width, height = mask.toBbox(rle).tolist()
    return (x, y, x + width, y + height) if width > 0 else None


def rle_iou(preds: Sequence[Rle], targets: Sequence[Rle]) -> list[list[float]]:
    """Return the IoU of every pair of masks as `[len(preds)][len(targets)]`; two empty masks have 0.

    Takes time linear in the runs of each pair and memory linear in all runs, whatever the area.

    Raises:
        ValueError: when the masks differ in size.
    """
    from pycocotools import mask

    if not preds or not targets:
        return [[] for _ in preds]
    sizes = {tuple(rle["size"]) for masks in (preds, targets) for rle in masks}
    if len(sizes) > 1:
        shown = " and ".join(f"{width}x{height}" for height, width in sorted(sizes))
        raise ValueError(f"masks of {shown} px cannot be compared; resample them to one size")
    ious: list[list[float]] = mask.iou(list(preds), list(targets), [0] * len(targets)).tolist()
    return ious


def box_rle(box: Box, size: Size) -> Rle:
    """Return the mask of a box: the pixels of an image of `size` whose centre is inside.

    The part outside the image is cut off. A box that is empty, reversed or not a number is an empty mask; infinite
    sides reach the image's edge.

    Args:
        box: in pixels of the image.
        size: size of the image and of the mask, pixels.
    """
    width, height = size
    x1, y1, x2, y2 = (0.0,) * 4 if any(map(math.isnan, box)) else box
    left, right = _first_centre(x1, width), _first_centre(x2, width)
    top, bottom = _first_centre(y1, height), _first_centre(y2, height)
    if left >= right or top >= bottom:
        return {"size": [height, width], "counts": _number(height * width)}
    columns, rows, gap = right - left, bottom - top, height - (bottom - top)
    if not gap:  # whole columns are one run
        columns, rows = 1, columns * height
    text = _number(left * height + top) + _number(rows)
    if columns > 1:  # all further runs repeat these two: differences of 0
        text += _number(gap) + "0" * (2 * columns - 3)
    if rest := (width - right) * height + height - bottom:
        text += _number(rest - gap if columns > 1 else rest)
    return {"size": [height, width], "counts": text}


def resample(rle: Rle, size: Size) -> Rle:
    """Return a mask at another size, by nearest neighbour; a mask that has this size is returned as it is.

    Row i of h shows row floor(i * H / h) of H, and columns alike: the rule of torch's `interpolate(mode="nearest")`
    and of OpenCV's `INTER_NEAREST`, without their rounding errors (they have none at powers of two).
    Takes time linear in the runs and the new width, whatever the area.

    Args:
        rle: a mask.
        size: the size wanted, pixels.

    Raises:
        ValueError: when a side of `size` is not positive.
    """
    import numpy as np

    old_height, old_width = rle["size"]
    width, height = size
    if (old_height, old_width) == (height, width):
        return rle
    if width < 1 or height < 1:
        raise ValueError(f"size={width}x{height} but a mask needs at least 1x1 pixels")
    toggles = _runs(rle["counts"])[:-1].cumsum()
    column = np.arange(width, dtype=np.int64)
    top = column * old_width // width * old_height  # first pixel of the old column that each new one shows
    after_first, before_end = toggles.searchsorted(top, "right"), toggles.searchsorted(top + old_height, "left")
    inner = before_end - after_first  # how often each shown column changes below its first pixel
    of_column = column.repeat(inner)
    nth = np.arange(inner.sum()) - (inner.cumsum() - inner).repeat(inner)
    row = toggles[after_first.repeat(inner) + nth] - top[of_column]
    changes_inside = of_column * height - (-row * height // old_height)  # row of H becomes ceil(row * h / H)
    last_is_set = np.concatenate(([0], before_end[:-1] % 2))
    changes_on_top = column[after_first % 2 != last_is_set] * height
    return _from_toggles(np.concatenate((changes_inside, changes_on_top)), height, width)


def encode(dense: "NDArray[np.bool_]") -> list[Rle]:
    """Return the run lengths of masks given as pixels.

    Args:
        dense: `[n, height, width]`.
    """
    import numpy as np
    from pycocotools import mask

    if not len(dense):
        return []
    return [_as_text(rle) for rle in mask.encode(np.asfortranarray(dense.transpose(1, 2, 0), dtype=np.uint8))]


def decode(rles: Sequence[Rle]) -> "NDArray[np.bool_]":
    """Return the pixels of masks of one size as `[len(rles), height, width]`; for pictures and segmenters.

    Raises:
        ValueError: when there is no mask, or the masks differ in size.
    """
    import numpy as np
    from pycocotools import mask

    if len({tuple(rle["size"]) for rle in rles}) != 1:
        raise ValueError(f"{len(rles)} masks cannot be stacked: at least one is needed, and all of one size")
    return np.ascontiguousarray(mask.decode(list(rles)).transpose(2, 0, 1)).view(np.bool_)


def _checked_size(value: object, expected: Size | None, where: str) -> tuple[int, int]:
    if (
        not isinstance(value, list | tuple)
        or len(value) != 2
        or not all(type(side) is int and side > 0 for side in value)
    ):
        raise ValueError(f"{where}.size={value!r} but expected [height, width], both positive whole numbers")
    height, width = value
    if expected is not None and (width, height) != tuple(expected):
        raise ValueError(
            f"{where}.size={[height, width]} ([height, width]) but the image is {expected[0]} wide and {expected[1]} "
            "high; give masks at the size of the stored image"
        )
    if height * width >= _MAX_AREA:
        raise ValueError(f"{where}.size={[height, width]} but a mask must have fewer than {_MAX_AREA} pixels")
    return height, width


def _runs_of_list(counts: list[Any], area: int, where: str) -> "NDArray[np.int64]":
    import numpy as np

    for index, run in enumerate(counts):
        if type(run) is not int or not 0 <= run <= area:
            raise ValueError(f"{where}.counts[{index}]={run!r} but expected a whole number from 0 to {area}")
    return np.array(counts, dtype=np.int64)


def _runs(counts: str) -> "NDArray[np.int64]":
    """Return the run lengths that COCO's compressed text stands for, background first.

    The text is a row of numbers in base 32, lowest digit first: one character a digit from chr(48) on, plus 32 when
    another follows; bit 4 of the last is the sign. From the fourth number on, a number is the difference to the run
    two before.

    Raises:
        ValueError: when the text is not such a row, worded to follow the text.
    """
    import numpy as np

    codes = np.frombuffer(counts.encode(errors="surrogatepass"), dtype=np.uint8) - np.uint8(48)  # wraps round
    if not codes.size:
        return codes.astype(np.int64)
    if codes.max() > 63:
        raise ValueError("has characters outside '0' to 'o'")
    last = np.flatnonzero(codes < 32)
    if not last.size or last[-1] != codes.size - 1:
        raise ValueError("ends inside a number")
    digits = np.diff(last, prepend=-1)
    if digits.max() > _MAX_DIGITS:
        raise ValueError(f"has a number of more than {_MAX_DIGITS} characters")
    first = last - digits + 1
    place = np.arange(codes.size) - first.repeat(digits)
    numbers = np.add.reduceat((codes & 31).astype(np.int64) << 5 * place, first)
    numbers -= (codes[last] & 16).astype(np.int64) << 5 * digits - 4
    numbers[1::2] = numbers[1::2].cumsum()
    numbers[2::2] = numbers[2::2].cumsum()
    return numbers


def _number(value: int) -> str:
    """Return a number as COCO's text has it; see `_runs`."""
    text = ""
    while True:
        digit, value = value & 31, value >> 5
        if value == (-1 if digit & 16 else 0):
            return text + chr(48 + digit)
        text += chr(48 + digit + 32)


def _from_toggles(toggles: "NDArray[np.int64]", height: int, width: int) -> Rle:
    """Return the mask that changes at the given pixels, counted down the columns, in any order.

    A pixel that is given twice does not change; those at or past the mask's end are ignored.
    """
    import numpy as np
    from pycocotools import mask

    pixels, times = np.unique(toggles, return_counts=True)
    kept = pixels[(times % 2 == 1) & (pixels < height * width)]
    counts = np.diff(kept, prepend=0, append=height * width)
    return _as_text(mask.frPyObjects({"size": [height, width], "counts": counts}, height, width))


def _as_text(rle: dict[str, Any]) -> Rle:
    height, width = rle["size"]
    return {"size": [int(height), int(width)], "counts": rle["counts"].decode("ascii")}


def _first_centre(edge: float, side: int) -> int:
    """Return the first of `side` pixels whose centre is not before `edge`; `side` when there is none."""
    return math.ceil(min(max(edge, 0.0), side) - 0.5)


def _shortened(counts: object) -> str:
    shown = repr(counts)
    return shown if len(shown) <= 40 else f"{shown[:40]}…"
