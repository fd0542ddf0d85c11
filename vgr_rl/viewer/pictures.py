"""Pictures as data URIs, small enough for a page of many."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from vgr_rl.grounding import Size

_LONGEST_SIDE = 640
_CRISP_BELOW = 256  # longest side, pixels; smaller pictures are drawn, not photographed


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture on the page: its `data:` URI ("" when it could not be read, then `problem` says why)."""

    uri: str
    size: Size
    crisp: bool
    problem: str = ""


def picture(image: Mapping[str, str] | None, size: Size) -> Picture:
    """Return the picture that a row refers to (`{path}`, `{png_base64}` or None), at most 640 px a side.

    Args:
        image: the reference.
        size: stored size, pixels: what boxes refer to.
    """
    if not image:
        return Picture("", size, False, "the row has no picture")
    try:
        uri = _encode(image.get("png_base64", ""), image.get("path", ""))
    except (OSError, ValueError) as error:
        return Picture("", size, False, f"picture not readable: {error}")
    return Picture(uri, size, max(size) <= _CRISP_BELOW)


@lru_cache(maxsize=256)
def _encode(png_base64: str, path: str) -> str:
    from PIL import Image, ImageOps

    source = io.BytesIO(base64.b64decode(png_base64, validate=True)) if png_base64 else Path(path)
    with Image.open(source) as opened:
        decoded = ImageOps.exif_transpose(opened).convert("RGB")
    small = max(decoded.size) <= _CRISP_BELOW
    decoded.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    buffer = io.BytesIO()
    if small:
        decoded.save(buffer, "PNG", optimize=True)
    else:
        decoded.save(buffer, "JPEG", quality=82)
    kind = "png" if small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
