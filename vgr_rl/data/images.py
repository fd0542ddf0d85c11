"""What an image file says about itself, from its header alone, and the picture that is in it."""

import io
import os
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError

from vgr_rl.data.schema import Row, resolve_image
from vgr_rl.grounding.frames import Size

_ORIENTATION, _SIDEWAYS = 0x0112, (5, 6, 7, 8)
_DEEP_MODES = ("F", "I")  # and "I;16" and its kin; Pillow's conversion to RGB cuts them off at 255


def upright_size(image: dict[str, Any]) -> Size:
    """Return the size, in pixels, of an image as it is meant to be seen (EXIF orientation applied).

    `image` is `{"bytes": …, "path": …}` with one of the two; a path is used as it is.

    Raises:
        ValueError: if both or neither are given, the file is absent, it is no image, it has more pixels than Pillow
            takes for safe (89 million), or it has one channel of more than 8 bits.
    """
    data, path = image.get("bytes"), image.get("path")
    if (data is None) == (not path):
        raise ValueError("has both bytes and path; keep one" if path else "has neither bytes nor path")
    if data is None and not os.path.isfile(str(path)):
        raise ValueError(f"no such file: {path}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # damaged metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(str(path) if data is None else io.BytesIO(data)) as header:
                (width, height), mode = header.size, header.mode
                sideways = _exif(header).get(_ORIENTATION) in _SIDEWAYS
    except UnidentifiedImageError as error:  # its text names the object that held the bytes
        raise ValueError("not a readable image: of no format that Pillow knows") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ValueError(f"too large, make it smaller: {error}") from error
    except (OSError, SyntaxError) as error:
        raise ValueError(f"not a readable image: {error}") from error
    if mode.startswith(_DEEP_MODES):
        raise ValueError(f"has pixels of mode {mode}, which would be cut off at 255; convert it to 8 bits a channel")
    return Size(height, width) if sideways else Size(width, height)


def image_sizes(row: Row, folder: Path) -> list[Size]:
    """Return the stored sizes of a sample's images, pixels: what it says of the first, the headers of the others.

    Args:
        row: the sample.
        folder: what relative image paths start from.

    Raises:
        ValueError: as `upright_size` does.
    """
    further = (upright_size(resolve_image(image, folder)) for image in row.images[1:])
    return [row.sample.image_size, *further] if row.images else []


def decode_image(image: Mapping[str, Any]) -> Image.Image:
    """Decode `{"bytes": …}` or `{"path": …}` to RGB, upright (EXIF orientation applied), at its stored size."""
    source = image["path"] if image.get("bytes") is None else io.BytesIO(image["bytes"])
    with Image.open(source) as opened:
        return ImageOps.exif_transpose(opened).convert("RGB")


def _exif(header: Image.Image) -> Image.Exif:
    """Return the EXIF data; Pillow would decode a PNG for it, as a PNG's may stand behind the pixels."""
    if header.format == "PNG" and "exif" not in header.info:
        file = header.fp  # type: ignore[attr-defined]
        file.seek(8)
        while len(start := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", start)
            if kind == b"eXIf":
                header.info["exif"] = file.read(length)
                break
            file.seek(length + 4, io.SEEK_CUR)
    return Image.Image.getexif(header)
