import io
import struct
import warnings
import zlib

import pytest
from PIL import Image

from vgr_rl.data.images import decode_image, upright_size
from vgr_rl.data.schema import image_bytes


def png_header(width, height, depth=8, kind=2):
    """A PNG without pixels: its header alone is read."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return image_bytes(buffer.getvalue())


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "of no format that Pillow knows"),
        (png_header(0, 5), "of no format that Pillow knows"),
        (png_header(10_000, 10_000), "too large, make it smaller: Image size .100000000 pixels"),
        (png_header(20_000, 10_000), "too large, make it smaller: Image size .200000000 pixels"),
        (png_header(4, 4, depth=16, kind=0), "pixels of mode I;16, which would be cut off at 255"),
    ],
)
def test_images_that_cannot_be_used_say_why_without_a_warning(data, reason):
    with warnings.catch_warnings(), pytest.raises(ValueError, match=reason):
        warnings.simplefilter("error")
        upright_size(image_bytes(data))


def test_cmyk_and_deep_colour_are_read_and_decode_to_their_colours():
    cmyk = encoded(Image.new("CMYK", (6, 4), (0, 255, 255, 0)), "JPEG")
    assert upright_size(cmyk) == (6, 4)
    assert decode_image(cmyk).getpixel((0, 0)) == pytest.approx((255, 0, 0), abs=3)
    assert upright_size(image_bytes(png_header(4, 5, depth=16, kind=2))) == (4, 5)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_upright_size_is_that_of_the_decoded_picture(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind in ("JPEG", "PNG", "WEBP"):
        turned = encoded(Image.new("RGB", (30, 20)), kind, exif=exif)
        assert upright_size(turned) == decode_image(turned).size
    late = exif_behind_the_pixels(turned := encoded(Image.new("RGB", (30, 20)), "PNG", exif=exif)["bytes"])
    assert late != turned
    assert upright_size(image_bytes(late)) == decode_image(image_bytes(late)).size


def exif_behind_the_pixels(png):
    """Move the EXIF chunk of a PNG to where some programs write it."""
    start, end = png.index(b"eXIf") - 4, png.index(b"IEND") - 4
    after = start + 12 + int.from_bytes(png[start : start + 4])
    return png[:start] + png[after:end] + png[start:after] + png[end:]


def test_the_pixels_of_no_format_are_read(tmp_path):
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"):
        whole = encoded(Image.effect_noise((300, 200), 50).convert("RGB"), kind)["bytes"]
        if kind not in ("TIFF", "WEBP"):  # the one has its directory at its end, of the other Pillow reads all bytes
            assert upright_size(image_bytes(whole[: len(whole) // 2])) == (300, 200), kind
        assert upright_size(image_bytes(whole)) == (300, 200), kind
