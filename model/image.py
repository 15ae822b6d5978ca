"""From the bytes of a picture file to the pixels a CLIP encoder takes.

Two steps. `load_image` decodes anything a person may send into an upright RGB picture, or says
why not; `to_pixels` resizes, crops and normalises as CLIP was trained (Radford et al. 2021; the
same numbers as Hugging Face's `CLIPImageProcessorPil`). Training and serving both come through
here, so what the model sees is the same. Needs torch and Pillow only.
"""

from __future__ import annotations

import dataclasses
import io
import math
import struct
import warnings
import zlib
from collections.abc import Mapping
from typing import Any

import torch
from PIL import Image, ImageChops, UnidentifiedImageError

from model.refusal import Refusal

#: Formats that are decoded. Pillow would open many more, and some by running other programs (EPS).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
FORMAT_NAMES = "JPEG, PNG, WebP, GIF, BMP or TIFF"
#: Pixels a picture may have unless the caller says otherwise: 50 million, a large phone camera.
MAX_PIXELS = 50_000_000
#: A JPEG is decoded at this many times the size that is looked at, or more: the resizing that
#: follows then decides how it looks, as it does from the full size.
DRAFT_MARGIN = 3
#: Times that a JPEG may go over its whole area, refining it (`progressive`); encoders take about
#: ten. Every one costs as much as decoding the picture once, and a few bytes of the file.
MAX_SCANS = 64
#: Pixels of a run-length encoded BMP, and runs in the file (2 bytes each): Pillow decodes them in
#: Python, a million within a second.
MAX_RUNS = 1 << 20
#: Pixels of a TIFF's tile that are fine however small the picture or the limit is.
SMALL_TILE = 1 << 20
#: Beyond this ratio of long to short side the crop is taken first: see `to_square`.
ORDINARY_ASPECT = 8

_STATUS = {
    "empty": 400,
    "image_undecodable": 400,
    "image_too_large": 413,
    "image_format": 415,
}

# How the accepted formats begin: a file that begins so and cannot be read is damaged.
_OUR_HEADS = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"II+\0")

# How files that are pictures (or often sent as one), but of a kind we do not accept, begin.
_OTHER_FORMATS: tuple[tuple[int, bytes, str], ...] = (
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypavis", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftyphev", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
    (4, b"ftypmsf1", "HEIF"),
    (4, b"ftyp", "video (MP4)"),
    (0, b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"8BPS", "Photoshop"),
    (0, b"%!PS", "PostScript"),
    (0, b"\xc5\xd0\xd3\xc6", "PostScript"),
    (0, b"%PDF", "PDF"),
    (0, b"<svg", "SVG"),
    (0, b"\x00\x00\x01\x00", "icon (ICO)"),
    (0, b"DDS ", "DDS"),
    (0, b"qoif", "QOI"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (0, b"\x1f\x8b", "gzip"),
    (0, b"PK\x03\x04", "zip"),
)

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
#: BMP's codes for run-length encoding, of 8 bits and of 4.
_RUN_LENGTH = (1, 2)
#: TIFF tags: where its strips and tiles begin, and a tile's width and height.
_STRIP_OFFSETS, _TILE_OFFSETS, _TILE_SIDES = 273, 324, (322, 323)
#: What begins a scan of a JPEG; within one, these bytes do not stand next to each other.
_START_OF_SCAN = b"\xff\xda"

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

_RESAMPLE = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


class ImageRefusal(Refusal):
    """A picture that cannot be captioned.

    Attributes:
        code: `empty`, `image_undecodable`, `image_too_large` or `image_format`.
        status: The HTTP status that says the same: 400, 400, 413 or 415.
    """

    def __init__(self, code: str, message: str) -> None:
        """Build a refusal from a code of `_STATUS` and a message written for the user."""
        super().__init__(message)
        self.code = code
        self.status = _STATUS[code]


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What a CLIP encoder expects of its pixels; travels with the weights.

    Attributes:
        size: Side S of the square the encoder sees, in pixels.
        mean: Subtracted from each of R, G, B after scaling to 0..1.
        std: Each of R, G, B is then divided by it.
        resample: Filter: `nearest`, `bilinear`, `bicubic` or `lanczos`.
        crop: Resize the shorter side to S and cut the centre; if false, squeeze to S x S.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resample: str = "bicubic"
    crop: bool = True

    def __post_init__(self) -> None:
        """Refuse what no encoder could have been trained with."""
        for name in ("mean", "std"):  # JSON brings lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not 1 <= self.size <= 4096:
            raise Refusal(f"preprocessing size is {self.size}; it must be from 1 to 4096 pixels")
        if self.resample not in _RESAMPLE:
            known = ", ".join(_RESAMPLE)
            raise Refusal(f"preprocessing resample is {self.resample!r}; it must be one of {known}")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise Refusal(
                f"preprocessing mean {self.mean} and std {self.std} must be three numbers each, "
                "std above 0"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """From what `to_dict` wrote, read back from JSON; an unknown or missing name is refused."""
        try:
            return cls(**values)
        except TypeError as error:
            raise Refusal(f"preprocessing {dict(values)} cannot be read: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """Plain names, numbers and lists, as written to JSON."""
        return {**dataclasses.asdict(self), "mean": list(self.mean), "std": list(self.std)}


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
                _check_work(image, data, _limit(max_pixels))
                if side is not None:
                    image.draft(None, (DRAFT_MARGIN * side, DRAFT_MARGIN * side))
                image.load()
                return _to_rgb(_upright(image))
    except ImageRefusal:
        raise
    except Image.DecompressionBombError:
        raise _too_large("far too many", _limit(max_pixels)) from None
    except _DAMAGED as error:
        raise _damaged(len(data)) from error


def to_pixels(image: Image.Image, preprocessing: Preprocessing) -> torch.Tensor:
    """Resize, crop and normalise a picture as its CLIP encoder expects.

    Args:
        image: A picture of mode RGB, as `load_image` gives it.
        preprocessing: What the encoder was trained with.

    Returns:
        float32 [3, S, S], normalised.

    Source: `CLIPImageProcessorPil` in Hugging Face transformers, which it equals within 1e-5.
    """
    side = preprocessing.size
    square = to_square(image, preprocessing)
    raw = torch.frombuffer(bytearray(square.tobytes()), dtype=torch.uint8)
    pixels = raw.view(side, side, 3).permute(2, 0, 1).to(torch.float32) / 255  # [3, S, S], 0..1
    mean = torch.tensor(preprocessing.mean).view(3, 1, 1)
    std = torch.tensor(preprocessing.std).view(3, 1, 1)
    return ((pixels - mean) / std).contiguous()


def _open(data: bytes | bytearray, max_pixels: int) -> Image.Image:
    """Read the header only, and refuse by format and size before a pixel is decoded."""
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise _unrecognised(data) from None
    width, height = image.size
    if width * height > _limit(max_pixels):
        image.close()
        raise _too_large(f"{width} x {height} = {width * height}", _limit(max_pixels))
    return image


def _check_work(image: Image.Image, data: bytes | bytearray, limit: int) -> None:
    """Refuse what would take far more time or memory than the size of the picture says."""
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})  # of a TIFF
    if image.format in ("JPEG", "MPO") or image.info.get("compression") in ("jpeg", "tiff_jpeg"):
        # In a TIFF, each strip or tile is a JPEG of its own.
        offsets = [tags.get(tag) for tag in (_STRIP_OFFSETS, _TILE_OFFSETS)]
        allowed = MAX_SCANS * max(len(each) if isinstance(each, tuple) else 1 for each in offsets)
        scans = data.count(_START_OF_SCAN)
        if scans > allowed:
            raise ImageRefusal(
                "image_too_large",
                f"the picture is a JPEG of {scans} scans; the limit is {allowed}; save it again",
            )
    if image.format == "BMP" and image.info.get("compression") in _RUN_LENGTH:
        pixels, runs = image.width * image.height, len(data) // 2
        if max(pixels, runs) > MAX_RUNS:
            raise ImageRefusal(
                "image_too_large",
                f"the picture is a run-length encoded BMP of {pixels} pixels and {runs} runs; the "
                f"limit of each is {MAX_RUNS}; save it as PNG",
            )
    width, height = (tags.get(tag, 0) for tag in _TILE_SIDES)
    if not isinstance(width, int) or not isinstance(height, int):
        raise _damaged(len(data))
    if width * height > max(limit, SMALL_TILE):
        raise _too_large(f"tiles of {width} x {height} = {width * height}", max(limit, SMALL_TILE))


def _limit(max_pixels: int) -> int:
    """Pixels allowed: Pillow's own guard stays on behind ours, and so bounds it."""
    return min(max_pixels, 2 * (Image.MAX_IMAGE_PIXELS or max_pixels))


def _too_large(size: str, limit: int) -> ImageRefusal:
    return ImageRefusal(
        "image_too_large",
        f"the picture has {size} pixels; the limit is {limit}; send a smaller version",
    )


def _damaged(size: int) -> ImageRefusal:
    return ImageRefusal(
        "image_undecodable",
        f"the picture ({size} bytes) is damaged or cut short and cannot be decoded; "
        "open it in a viewer, or send it again whole",
    )


def _unrecognised(data: bytes | bytearray) -> ImageRefusal:
    """The refusal for bytes that Pillow takes for none of our formats."""
    head = bytes(data[:16])
    if head.startswith(_OUR_HEADS):
        return _damaged(len(data))
    for offset, magic, name in _OTHER_FORMATS:
        if head[offset : offset + len(magic)] == magic:
            return ImageRefusal(
                "image_format",
                f"{name} files are not accepted; convert the picture to {FORMAT_NAMES}",
            )
    return ImageRefusal(
        "image_undecodable",
        f"these bytes are no picture we know (they begin {head[:12]!r}); send a "
        f"{FORMAT_NAMES} file",
    )


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


def to_square(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """The S x S square the encoder sees.

    The shorter side becomes S and the centre is cut out. For very long pictures the resized one
    would be huge (1 x 20000 at S = 224 is a gigabyte and more), so only the part that is kept is
    computed; ordinary shapes go the plain way, which is the reference to the last bit.
    """
    side = preprocessing.size
    filter_ = _RESAMPLE[preprocessing.resample]
    if not preprocessing.crop:
        return image.resize((side, side), filter_)
    short, long = sorted(image.size)
    resized_long = side * long // short
    width, height = (side, resized_long) if image.width <= image.height else (resized_long, side)
    left, top = (width - side) // 2, (height - side) // 2
    if long <= ORDINARY_ASPECT * short:
        resized = image.resize((width, height), filter_)
        return resized.crop((left, top, left + side, top + side))
    across, down = image.width / width, image.height / height  # source pixels for one of ours
    box = (left * across, top * down, (left + side) * across, (top + side) * down)
    return image.resize((side, side), filter_, box=box)
