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

from model.image.limits import check_cost, check_parts
from model.image.refusals import (
    FORMAT_NAMES,
    FORMATS,
    ImageRefusal,
    damaged,
    too_large,
    unrecognised,
)
from model.refusal import Refusal

#: Pixels a picture may have unless the caller says otherwise: 50 million, a large phone camera.
MAX_PIXELS = 50_000_000
#: A JPEG is decoded at this many times the size that is looked at, or more: the resizing that
#: follows then decides how it looks, as it does from the full size.
DRAFT_MARGIN = 3
#: Beyond this ratio of long to short side the crop is taken first: see `to_square`.
ORDINARY_ASPECT = 8

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

_RESAMPLE = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


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
        except (TypeError, ValueError) as error:
            raise Refusal(f"preprocessing {values!r} cannot be read: {error}") from None

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
