"""From the colours of a decoded image to 8-bit sRGB without transparency.

Covers colour profiles (ICC.1), inks (CMYK), grey values of more than 8 bits, and transparency.
"""

from __future__ import annotations

import io
import math

from PIL import Image, ImageChops, ImageCms

from model.image.refusals import ImageRefusal, damaged

#: Warning: the colour profile cannot be used, and the colours are converted without it.
BROKEN_PROFILE = "colour_profile"
#: Most bytes of a colour profile; those of printing presses have about 3 MB.
MAX_PROFILE = 8 << 20
#: Where a profile changes no colour of a sample by more than this, of 255, it counts as sRGB. The
#: many versions of sRGB's own profile differ by 1 from rounding.
SAME_COLOUR = 2
#: Usual depths of grey values, in bits.
DEPTHS = (10, 12, 14, 16)
#: A pixel shows on white if its red, green or blue differs from white by this or more.
SHOWS_ON_WHITE = 32
#: Transparent images of which a smaller part than this shows on white are laid over black.
MIN_SHOWN = 0.02

#: Image mode -> the colour space that a profile for it has.
_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}
#: An element of profiles that may hold any number of calculations, which would take minutes.
_CALCULATIONS = b"mpet"


def to_rgb(
    image: Image.Image, size: int, significant_bits: int | None, warnings: list[str]
) -> Image.Image:
    """Convert a decoded image of any mode to 8-bit sRGB.

    A colour profile is applied. Transparent images are laid over white, or over black if nearly
    nothing of them shows on white.

    Args:
        image: The image, with its colour profile in `info`.
        size: Bytes of its file, for the refusal.
        significant_bits: Bits of grey values that the file says are used, if it does.
        warnings: `BROKEN_PROFILE` is added if the profile cannot be used.

    Returns:
        An image of mode RGB.

    Raises:
        ImageRefusal: The colours are CIELAB, or the file is damaged.
    """
    profile = image.info.get("icc_profile")
    if image.mode == "I" or image.mode == "F" or image.mode.startswith("I;16"):
        image = _to_8_bit(image, size, significant_bits)
    if image.mode == "LAB":
        raise ImageRefusal(
            "image_undecodable",
            "the picture's colours are CIELAB, which cannot be converted here; save it as RGB",
        )
    if image.mode == "P" and image.palette is None:
        raise damaged(size)
    alpha = None
    if image.has_transparency_data:
        try:
            rgba = image if image.mode == "RGBA" else image.convert("RGBA")
        except ValueError:  # transparency of more colours than the palette has
            raise damaged(size) from None
        alpha = rgba.getchannel("A")
        image = image.getchannel("L") if image.mode == "LA" else rgba.convert("RGB")
        del rgba
    if image.mode == "1":
        image = image.convert("L")
    elif image.mode not in _SPACES:
        image = image.convert("RGB")
    rgb = _to_srgb(image, profile, warnings)
    return rgb if alpha is None else _over_background(rgb, alpha)


def _to_srgb(image: Image.Image, profile: object, warnings: list[str]) -> Image.Image:
    """An image of mode RGB, L or CMYK as sRGB, by its colour profile if it has one."""
    if not profile:
        return image.convert("RGB")
    transform = _transform(profile, image.mode)
    if transform is None:
        warnings.append(BROKEN_PROFILE)
        return image.convert("RGB")
    if image.mode == "RGB":
        sample = _sample_colours()
        seen = ImageCms.applyTransform(sample, transform)
        assert seen is not None  # it is None only if the sample itself is changed
        changes = ImageChops.difference(sample, seen).getextrema()
        if all(most <= SAME_COLOUR for _, most in changes):  # type: ignore[misc]
            return image
    converted = ImageCms.applyTransform(image, transform, inPlace=image.mode == "RGB")
    return image if converted is None else converted


def _transform(profile: object, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The conversion of a colour profile to sRGB, or None if the profile cannot be used."""
    if not isinstance(profile, bytes) or len(profile) > MAX_PROFILE or _CALCULATIONS in profile:
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != _SPACES[mode]:
            return None
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (OSError, UnicodeDecodeError, ImageCms.PyCMSError):
        return None


def _sample_colours() -> Image.Image:
    """Colours from all over RGB: 9 values of each of red, green and blue."""
    values = [min(255, 32 * step) for step in range(9)]
    colours = [(red, green, blue) for red in values for green in values for blue in values]
    return Image.frombytes("RGB", (27, 27), bytes(value for rgb in colours for value in rgb))


def _over_background(rgb: Image.Image, alpha: Image.Image) -> Image.Image:
    """An image laid over white, or over black if nearly nothing of it shows on white.

    Args:
        rgb: Colours. It is changed.
        alpha: Opacity, of the same size.
    """
    if alpha.getextrema()[0] == 255:
        return rgb
    visible = sum(alpha.histogram()[1:])
    shown = 0
    for band in ("R", "G", "B"):  # one at a time, which needs less memory
        from_white = ImageChops.multiply(ImageChops.invert(rgb.getchannel(band)), alpha)
        shown = max(shown, sum(from_white.histogram()[SHOWS_ON_WHITE:]))
    background = "white" if shown >= MIN_SHOWN * visible else "black"
    rgb.paste(background, mask=ImageChops.invert(alpha))  # a second image would double the memory
    return rgb


def _to_8_bit(image: Image.Image, size: int, significant_bits: int | None) -> Image.Image:
    """Grey values of 16 or 32 bits or floating point, scaled to 0..255; Pillow would clip them.

    White is the largest value of the depth that the file gives, if no value is above it. Otherwise
    it is that of the smallest usual depth that holds all values: cameras and scanners of 12 bits
    store their values in 16 as they are.
    """
    levels = [float((1 << bits) - 1) for bits in DEPTHS]
    if image.mode.startswith("I;16"):
        image = image.convert("I")
    elif image.mode == "I":
        levels = [255.0, *levels]
    else:
        levels = [1.0, 255.0, *levels]
    if significant_bits is not None:
        levels = [float((1 << significant_bits) - 1), *levels]
    low, high = image.getextrema()
    if not (math.isfinite(float(low)) and math.isfinite(float(high))):  # type: ignore[arg-type]
        raise damaged(size)
    white = next((level for level in levels if high <= level), float(high))  # type: ignore
    return image.convert("F").point(lambda value: value * (255.0 / white) + 0.0).convert("L")
