"""From the bytes of an image file to an upright RGB image, or the reason why not.

Training and serving both decode through here, so what the model sees is the same. Needs Pillow
only.
"""

from __future__ import annotations

import io
import math
import struct
import warnings
import zlib

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

#: Pixels a picture may have unless the caller says otherwise: 50 million, a large phone camera.
MAX_PIXELS = 50_000_000
#: A JPEG is decoded at this many times the size that is looked at, or more: the resizing that
#: follows then decides how it looks, as it does from the full size.
DRAFT_MARGIN = 3

# EXIF orientation -> what turns the stored picture upright (TIFF 6.0, tag 274).
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
# What Pillow's decoders raise for damaged files: each was met, or is named in Pillow's own lists.
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    EOFError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
)


def load_image(
    data: bytes | bytearray, max_pixels: int = MAX_PIXELS, side: int | None = None
) -> Image.Image:
    """Decode a picture file to 8-bit RGB, the right way up.

    Transparency is laid over white; of an animation or a multi-page file the first picture is
    taken; 16-bit, grey, palette and CMYK pictures are converted; EXIF orientation is applied.

    Args:
        data: The bytes of a JPEG, PNG, WebP, GIF, BMP or TIFF file.
        max_pixels: Width x height allowed; read from the header, before anything is decoded.
        side: What the shorter side will be resized to, if that is known. A JPEG much larger is
            then decoded at a half, a quarter or an eighth of its size, which JPEG allows without
            computing the rest; never below `DRAFT_MARGIN` times the side.

    Returns:
        A picture of mode RGB.

    Raises:
        ImageRefusal: The bytes are empty, of another format, damaged, or hold too many pixels.
    """
    if not data:
        raise ImageRefusal("empty", f"the picture is empty (0 bytes); send a {FORMAT_NAMES} file")
    try:
        with warnings.catch_warnings():
            # Pillow warns of odd metadata and of sizes that the limit below judges anyway.
            warnings.simplefilter("ignore")
            with _open(data, max_pixels) as image:
                check_cost(image, data, _limit(max_pixels))
                if side is not None:
                    image.draft(None, (DRAFT_MARGIN * side, DRAFT_MARGIN * side))
                image.load()
                return _to_rgb(_upright(image))
    except ImageRefusal:
        raise
    except Image.DecompressionBombError:
        raise too_large("far too many", _limit(max_pixels)) from None
    except _DAMAGED as error:
        if "MAX_TEXT" in str(error):  # the name of Pillow's own limit
            raise ImageRefusal(
                "image_too_large",
                "a text or the colour profile in the PNG is larger than 1 MB; save it without",
            ) from None
        raise damaged(len(data)) from error


def _open(data: bytes | bytearray, max_pixels: int) -> Image.Image:
    """Read the header only, and refuse by format and size before a pixel is decoded."""
    check_parts(data)
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise unrecognised(data) from None
    width, height = image.size
    if width * height > _limit(max_pixels):
        image.close()
        raise too_large(f"{width} x {height} = {width * height}", _limit(max_pixels))
    return image


def _limit(max_pixels: int) -> int:
    """Pixels allowed: Pillow's own guard stays on behind ours, and so bounds it."""
    return min(max_pixels, 2 * (Image.MAX_IMAGE_PIXELS or max_pixels))


def _upright(image: Image.Image) -> Image.Image:
    """The picture turned as its EXIF orientation asks (a TIFF is turned by Pillow as it loads)."""
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except _DAMAGED:
        # Broken metadata around a sound picture: it then says nothing about orientation.
        return image
    turn = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any mode Pillow decodes to, as 8-bit RGB over white."""
    if image.mode == "I" or image.mode == "F" or image.mode.startswith("I;16"):
        return _to_8_bit(image).convert("RGB")
    if image.has_transparency_data:
        picture = image if image.mode == "RGBA" else image.convert("RGBA")
        alpha = picture.getchannel("A")
        rgb = picture.convert("RGB")
        rgb.paste("white", mask=ImageChops.invert(alpha))  # half the memory of a second picture
        return rgb
    return image.convert("RGB")


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Grey values of 16 or 32 bits, or floating point, scaled to 0..255 (Pillow would clip)."""
    if image.mode.startswith("I;16"):
        white = 65535.0
        image = image.convert("I")
    else:
        low, high = image.getextrema()
        if not (math.isfinite(float(low)) and math.isfinite(float(high))):  # type: ignore[arg-type]
            raise ValueError("grey values that are no numbers")
        # The file does not say which value is white: the smallest usual one that holds them all.
        levels = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
        white = next((level for level in levels if high <= level), float(high))  # type: ignore
    return image.convert("F").point(lambda value: value * (255.0 / white) + 0.0).convert("L")
