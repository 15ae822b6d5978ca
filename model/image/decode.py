"""From the bytes of an image file to an upright RGB image, or a refusal.

Training and serving both decode with this file, so the model gets the same pixels in both. Needs
Pillow only.
"""

from __future__ import annotations

import contextlib
import io
import math
import struct
import warnings
from collections.abc import Iterator

from PIL import Image, ImageChops, UnidentifiedImageError

from model.image.limits import check_cost, check_parts
from model.image.refusals import (
    FORMAT_NAMES,
    FORMATS,
    ImageRefusal,
    damaged,
    too_large,
    unrecognised,
)

#: The default limit of width x height: 50 million pixels, as of a large phone camera.
MAX_PIXELS = 50_000_000
#: A JPEG is decoded at this many times the size that the model takes, or more. The resizing that
#: follows then decides how it looks, as it does when it starts from the full size.
DRAFT_MARGIN = 3

# EXIF orientation (TIFF 6.0, tag 274) -> the transposition that turns the image upright.
# `ImageOps.exif_transpose` does the same, but also writes the metadata anew. That fails with errors
# of many types where the metadata is broken, and the pixels are all that is needed here.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112
# The exceptions that Pillow's readers raise for damaged files. More than 250,000 files of all
# accepted formats were damaged at random (cut short, bits and lengths changed, chunks exchanged),
# and raised these. MemoryError, RuntimeError and AttributeError were not among them: those are
# faults of the machine or of the program.
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    IndexError,
    OverflowError,
    struct.error,
)


def load_image(
    data: bytes | bytearray, max_pixels: int = MAX_PIXELS, side: int | None = None
) -> Image.Image:
    """Decode an image file to 8-bit RGB, upright.

    Transparent pixels are blended with white. Of an animation or a multi-page file the first image
    is taken. 16-bit, grey, palette and CMYK images are converted. EXIF orientation is applied.

    Args:
        data: The bytes of a JPEG, PNG, WebP, GIF, BMP or TIFF file.
        max_pixels: Largest width x height allowed; checked before anything is decoded.
        side: The length in pixels to which the shorter side will be resized, if it is known. A much
            larger JPEG is then decoded at a half, a quarter or an eighth of its size, never below
            `DRAFT_MARGIN` times `side`; JPEG allows that without computing the rest.

    Returns:
        An image of mode RGB.

    Raises:
        ImageRefusal: The bytes are empty, of another format, damaged, or hold too many pixels.
    """
    if not data:
        raise ImageRefusal("empty", f"the picture is empty (0 bytes); send a {FORMAT_NAMES} file")
    limit = _limit(max_pixels)
    check_parts(data)
    with warnings.catch_warnings():
        # Pillow warns of odd metadata, and of sizes for which the limit here is decisive.
        warnings.simplefilter("ignore")
        with _damage_refused(data, limit):
            image = Image.open(io.BytesIO(data), formats=FORMATS)  # reads the header only
        with image:
            if image.width * image.height > limit:
                size = f"{image.width} x {image.height} = {image.width * image.height}"
                raise too_large(size, limit)
            check_cost(image, data, limit)
            with _damage_refused(data, limit):
                if side is not None:
                    image.draft(None, (DRAFT_MARGIN * side, DRAFT_MARGIN * side))
                image.load()
            return _to_rgb(_upright(image), len(data))


@contextlib.contextmanager
def _damage_refused(data: bytes | bytearray, limit: int) -> Iterator[None]:
    """Around calls of Pillow alone: turns its exceptions for damaged files into refusals."""
    try:
        yield
    except UnidentifiedImageError:
        raise unrecognised(data) from None
    except Image.DecompressionBombError:
        raise too_large("far too many", limit) from None
    except _DAMAGED as error:
        # Pillow raises a ValueError for this too; only its text, which names the limit, differs.
        if "MAX_TEXT" in str(error):
            raise ImageRefusal(
                "image_too_large",
                "a text or the colour profile in the PNG is larger than 1 MB; save it without",
            ) from None
        raise damaged(len(data)) from error


def _limit(max_pixels: int) -> int:
    """The limit in pixels; at most Pillow's own, which stays active."""
    return min(max_pixels, 2 * (Image.MAX_IMAGE_PIXELS or max_pixels))


def _upright(image: Image.Image) -> Image.Image:
    """The image turned by its EXIF orientation; Pillow has done that already for a TIFF."""
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except _DAMAGED:  # the metadata is broken, the image is not
        return image
    turn = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image, size: int) -> Image.Image:
    """An image of any mode as 8-bit RGB over white; `size` is that of its file, for the refusal."""
    if image.mode == "I" or image.mode == "F" or image.mode.startswith("I;16"):
        return _to_8_bit(image, size).convert("RGB")
    if image.mode == "LAB":
        raise ImageRefusal(
            "image_undecodable",
            "the picture's colours are CIELAB, which cannot be converted here; save it as RGB",
        )
    if image.mode == "P" and image.palette is None:
        raise damaged(size)
    if image.has_transparency_data:
        try:
            rgba = image if image.mode == "RGBA" else image.convert("RGBA")
        except ValueError:  # transparency of more colours than the palette has
            raise damaged(size) from None
        alpha = rgba.getchannel("A")
        rgb = rgba.convert("RGB")
        rgb.paste("white", mask=ImageChops.invert(alpha))  # a white image would double the memory
        return rgb
    return image.convert("RGB")


def _to_8_bit(image: Image.Image, size: int) -> Image.Image:
    """Grey values of 16 or 32 bits or floating point, scaled to 0..255; Pillow would clip them."""
    if image.mode.startswith("I;16"):
        white = 65535.0
        image = image.convert("I")
    else:
        low, high = image.getextrema()
        if not (math.isfinite(float(low)) and math.isfinite(float(high))):  # type: ignore[arg-type]
            raise damaged(size)
        # The file does not record which value is white: the smallest usual one above all values.
        levels = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
        white = next((level for level in levels if high <= level), float(high))  # type: ignore
    return image.convert("F").point(lambda value: value * (255.0 / white) + 0.0).convert("L")
