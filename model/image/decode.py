"""From the bytes of an image file to an upright RGB image, or a refusal.

Training and serving both decode with this file, so the model gets the same pixels in both. Needs
Pillow and pillow-heif only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import struct
from collections.abc import Iterator
from warnings import catch_warnings, simplefilter

import pillow_heif
from PIL import Image, ImageChops, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from model.image import jpeg
from model.image.colour import to_rgb
from model.image.limits import check_cost, check_jpeg, check_parts, coefficient_bytes
from model.image.refusals import (
    FORMAT_NAMES,
    FORMATS,
    ImageRefusal,
    damaged,
    too_large,
    unrecognised,
)

# Gives Pillow a reader of HEIC. The other images in a file are not needed.
pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)

#: The default limit of width x height: 50 million pixels, as of a large phone camera.
MAX_PIXELS = 50_000_000
#: A JPEG is decoded at this many times the size that the model takes, or more. The resizing that
#: follows then decides how it looks, as it does when it starts from the full size.
DRAFT_MARGIN = 3
#: Memory that decoding takes for each pixel: at most RGBA, RGB and two channels.
BYTES_PER_PIXEL = 12
#: The same for formats whose decoders keep the colours several times.
_MORE_BYTES_PER_PIXEL = {"WEBP": 18, "AVIF": 18, "HEIF": 18}
#: Most pixels that the decoder of AVIF decodes, whatever size the header has: that of Pillow's
#: library. The file's own colours may be of another size, to which they are scaled.
LARGEST_AVIF = 16_384 * 16_384
#: Warning: the last bytes of the file are missing.
TRUNCATED = "truncated"
#: Most rows of pixels that may be missing at the end of a JPEG, as a part of its height.
MAX_MISSING_ROWS = 0.01
#: Most frames of an animation in which one that is not blank is looked for.
MAX_FRAMES = 64

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
#: The exceptions that the decoders of AVIF and HEIC raise beside those.
_BOX_DAMAGED = (RuntimeError, EOFError, ZeroDivisionError)
#: Formats of animations.
_ANIMATED = ("GIF", "PNG", "WEBP", "AVIF")
#: What e-mail and web programs put before a file by mistake. No accepted format begins with these.
_BLANK = b" \t\r\n"
#: Ends a JPEG that has no end.
_END_OF_JPEG = b"\xff\xd9"
#: Data of a scan that no picture has.
_OTHER_DATA = bytes(range(254, 0, -1))


@dataclasses.dataclass
class OpenedImage:
    """An image file whose header is read and checked; nothing is decoded yet.

    Attributes:
        image: Pillow's image, not decoded.
        data: The file.
        limit: The limit in pixels.
        memory: Bytes that decoding takes at most, beside the file.
        side: See `open_image`.
        warnings: What is wrong with the file without making it unusable: `truncated`,
            `colour_profile`. Complete after `decode`.
    """

    image: Image.Image
    data: bytes | bytearray
    limit: int
    memory: int
    side: int | None = None
    warnings: list[str] = dataclasses.field(default_factory=list)

    @property
    def pixels(self) -> int:
        """Width x height at which the image will be decoded."""
        return self.image.width * self.image.height

    def decode(self) -> Image.Image:
        """The image as 8-bit RGB, upright; see `load_image`. To be called once.

        Raises:
            ImageRefusal: The file is damaged.
        """
        with catch_warnings():
            simplefilter("ignore")  # of odd metadata
            with _damage_refused(self.data, self.limit):
                self.image.load()
                if self.image.format in _ANIMATED:
                    _seek_content(self.image, self.limit)
            if TRUNCATED in self.warnings:
                self._check_rows()
            bits = _significant_bits(self.data) if self.image.format == "PNG" else None
            return to_rgb(_upright(self.image), len(self.data), bits, self.warnings)

    def _check_rows(self) -> None:
        """Refuse a JPEG without an end if more than its last rows are missing.

        Pillow does not tell how much of the image the data hold. So it is decoded with other data
        behind its own. The rows that differ are those which the file does not hold.
        """
        with _damage_refused(self.data, self.limit):
            other = JpegImageFile(io.BytesIO(self.data + _OTHER_DATA + _END_OF_JPEG))
            _reduce(other, self.side)
            other.load()
        differing = ImageChops.difference(self.image, other).getbbox(alpha_only=False)
        missing = 0 if differing is None else self.image.height - differing[1]
        if missing > MAX_MISSING_ROWS * self.image.height:
            raise damaged(len(self.data))


def load_image(
    data: bytes | bytearray, max_pixels: int = MAX_PIXELS, side: int | None = None
) -> Image.Image:
    """Decode an image file to 8-bit sRGB, upright.

    Colour profiles and EXIF orientation are applied. 16-bit, grey, palette and CMYK images are
    converted. Transparent pixels are blended with white, or with black if nearly nothing of the
    image shows on white. Of an animation the first frame that is not blank is taken, of other files
    of several images the first image. A JPEG without its last bytes is decoded if 99% of its rows
    are there; `open_image` gives the warning.

    Args:
        data: See `open_image`.
        max_pixels: See `open_image`.
        side: See `open_image`.

    Returns:
        An image of mode RGB.

    Raises:
        ImageRefusal: The bytes are empty, of another format, damaged, or hold too many pixels.
    """
    return open_image(data, max_pixels, side).decode()


def open_image(
    data: bytes | bytearray, max_pixels: int = MAX_PIXELS, side: int | None = None
) -> OpenedImage:
    """Read and check the header of an image file.

    Args:
        data: The bytes of a JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC file. Blanks and line
            ends before them are left out.
        max_pixels: Largest width x height at which an image is decoded.
        side: The length in pixels to which the shorter side will be resized, if it is known. A much
            larger JPEG is then decoded at a half, a quarter or an eighth of its size, never below
            `DRAFT_MARGIN` times `side`; JPEG allows that without computing the rest. Its full size
            may be up to `limits.REDUCED_RATIO` times `max_pixels`.

    Raises:
        ImageRefusal: The bytes are empty, of another format, damaged, or hold too many pixels.
    """
    if data[:1] and data[:1] in _BLANK:
        data = data.lstrip(_BLANK)
    if not data:
        raise ImageRefusal("empty", f"the picture is empty (0 bytes); send a {FORMAT_NAMES} file")
    limit = _limit(max_pixels)
    with catch_warnings():
        # Pillow warns of odd metadata, and of sizes for which the limit here is decisive.
        simplefilter("ignore")
        if data.startswith(jpeg.SIGNATURE):
            return _open_jpeg(data, max_pixels, side)
        check_parts(data)
        with _damage_refused(data, limit):
            image = Image.open(io.BytesIO(data), formats=FORMATS)  # reads the header only
        check_cost(image, data, limit)
        pixels = LARGEST_AVIF if image.format == "AVIF" else image.width * image.height
        each = _MORE_BYTES_PER_PIXEL.get(image.format or "", BYTES_PER_PIXEL)
        return OpenedImage(image, data, limit, each * pixels)


def _open_jpeg(data: bytes | bytearray, limit: int, side: int | None) -> OpenedImage:
    """Read and check the header of a JPEG; `limit` is that of the decoded size.

    `Image.open` would refuse 200 megapixels, which are few where they are decoded at an eighth.
    """
    parts = jpeg.read_parts(data)
    warnings = []
    if not parts.ended:
        if not parts.complete:
            raise damaged(len(data))
        if parts.buffered:
            side = None  # missing bits of the last scan do not show at a fraction of the size
        data = data.rstrip(b"\xff")  # the first byte of a pair
        warnings.append(TRUNCATED)
    with _damage_refused(data, limit):
        image = JpegImageFile(io.BytesIO(data if parts.ended else data + _END_OF_JPEG))
    check_jpeg(image, parts, limit)
    coefficients, full_width = coefficient_bytes(image, parts), image.width
    _reduce(image, side)
    pixels = image.width * image.height
    if pixels > limit:
        size = f"{image.width} x {image.height} = {pixels}"
        reduced = f" (after reducing by {full_width // image.width})"
        raise too_large(size + (reduced if image.width < full_width else ""), limit)
    memory = BYTES_PER_PIXEL * pixels + coefficients
    return OpenedImage(image, data, limit, memory * (1 if parts.ended else 2), side, warnings)


def _reduce(image: JpegImageFile, side: int | None) -> None:
    """Let a JPEG be decoded at a fraction of its size, if that suffices for `side`."""
    if side is not None:
        image.draft(None, (DRAFT_MARGIN * side, DRAFT_MARGIN * side))


def _seek_content(image: Image.Image, limit: int) -> None:
    """Go to the first frame of an animation that is not blank, or to the first if all are.

    Args:
        image: The image with its first frame decoded.
        limit: Most pixels of the frames that are decoded to find it.
    """
    for frame in range(1, min(MAX_FRAMES, limit // (image.width * image.height))):
        if not _is_blank(image):
            return
        try:
            image.seek(frame)
        except EOFError:  # there are no more
            break
        if image.width * image.height > limit:  # a frame of a GIF may be larger than the first
            raise too_large(f"{image.width} x {image.height}", limit)
        image.load()
    if _is_blank(image):
        image.seek(0)
        image.load()


def _is_blank(image: Image.Image) -> bool:
    """Whether all pixels have one colour, or are transparent."""
    ranges = image.getextrema()
    if image.mode in ("RGBA", "LA") and ranges[-1][1] == 0:  # type: ignore[index]
        return True
    bands = ranges if isinstance(ranges[0], tuple) else (ranges,)
    return all(low == high for low, high in bands)


def _significant_bits(data: bytes | bytearray) -> int | None:
    """The bits of a grey PNG's values that are used, from its `sBIT` chunk if it has one."""
    at = 8
    while (kind := data[at + 4 : at + 8]) not in (b"", b"IDAT"):
        if kind == b"sBIT":
            bits = data[at + 8]
            return bits if 1 <= bits <= 16 else None
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return None


@contextlib.contextmanager
def _damage_refused(data: bytes | bytearray, limit: int) -> Iterator[None]:
    """Around calls of Pillow alone: turns its exceptions for damaged files into refusals."""
    try:
        yield
    except ImageRefusal:  # it is a ValueError too
        raise
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
    except _BOX_DAMAGED as error:
        if data[4:8] != b"ftyp":
            raise
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
