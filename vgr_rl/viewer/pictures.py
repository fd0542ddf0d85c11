"""Pictures as data URIs, small enough for a page of many."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

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


def picture(image: Mapping[str, Any] | None, size: Size) -> Picture:
    """Return the picture that a row refers to, at most 640 px a side.

    Args:
        image: `{path}`, `{png_base64}`, `{parquet, row}` (the first image of a row of our schema) or None.
        size: stored size, pixels: what boxes refer to.
    """
    if not image:
        return Picture("", size, False, "the row has no picture")
    try:
        image = _stored(image["parquet"], image["row"]) if "parquet" in image else image
        uri = _encode(image.get("png_base64", ""), image.get("path", ""))
    except (OSError, ValueError) as error:
        return Picture("", size, False, f"picture not readable: {error}")
    return Picture(uri, size, max(size) <= _CRISP_BELOW)


@lru_cache(maxsize=256)
def _stored(parquet: str, row: int) -> dict[str, str]:
    """Return the first image of a row; reads only the row group that holds it."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(parquet) as file:
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if row < rows:
                stored = file.read_row_group(group, columns=["images"])["images"][row].as_py()[0]
                break
            row -= rows
        else:
            raise ValueError(f"{parquet} has no such row")
    if stored["bytes"]:
        return {"png_base64": base64.b64encode(stored["bytes"]).decode()}
    return {"path": str(Path(parquet).parent / stored["path"])}


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
