"""Colours as a viewer shows them: profiles, deep grey values, transparency, blank frames."""

from __future__ import annotations

import io
import struct
import zlib

import pytest
from PIL import Image, ImageCms, ImageDraw

from model.image.decode import load_image, open_image
from tests.pictures import BLUE, RED, assert_picture, encoded, picture


def srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def swapped() -> bytes:
    """sRGB with the primaries of red and blue exchanged: its red is blue."""
    profile = srgb()
    return profile.replace(b"rXYZ", b"....").replace(b"bXYZ", b"rXYZ").replace(b"....", b"bXYZ")


def inks() -> bytes:
    """A CMYK profile of unusual inks: cyan is red, magenta and yellow are clear, black is black."""
    paper, red = (255, 128, 128), (int(255 * 0.45), 128 + 65, 128 + 45)  # L*, a*, b* in 8 bits
    black = (0, 128, 128)
    colours = [ink for cyan in (paper, red) for _ in range(4) for ink in (cyan, black)]
    table = bytes(value for colour in colours for value in colour)
    identity = struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    ramp = bytes(range(256))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + 4 * ramp + table + 3 * ramp
    lut += bytes(-len(lut) % 4)
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    tags = [(b"A2B0", lut), (b"wtpt", white)]
    at, entries, content = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags:
        entries += name + struct.pack(">II", at + len(content), len(data))
        content += data
    body = struct.pack(">I", len(tags)) + entries + content
    head = struct.pack(">I", 128 + len(body)) + bytes(4) + struct.pack(">I", 0x02100000)
    head += b"prtrCMYKLab " + bytes(12) + b"acsp" + bytes(28)
    head += struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + body


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_a_colour_profile_is_applied(format_: str):
    red, green, blue = picture().split()
    stored = Image.merge("RGB", (blue, green, red))
    options = {"quality": 95} if format_ != "TIFF" else {}
    opened = open_image(encoded(stored, format_, icc_profile=swapped(), **options))
    assert_picture(opened.decode(), BLUE, RED)
    assert opened.warnings == []


def test_a_profile_is_applied_to_a_palette_and_beside_transparency():
    red, green, blue = picture().split()
    stored = Image.merge("RGB", (blue, green, red))
    palette = encoded(stored.quantize(), "PNG", icc_profile=swapped())
    assert_picture(load_image(palette), BLUE, RED)
    stored.putalpha(255)
    stored.putpixel((30, 20), (0, 0, 0, 0))
    seen = load_image(encoded(stored, "PNG", icc_profile=swapped()))
    assert_picture(seen, BLUE, RED)
    assert seen.getpixel((30, 20)) == (255, 255, 255)


def test_srgb_s_own_profile_changes_nothing():
    noise = Image.effect_noise((60, 40), 80).convert("RGB")
    seen = load_image(encoded(noise, "PNG", icc_profile=srgb()))
    assert seen.tobytes() == noise.tobytes()


@pytest.mark.parametrize("format_", ["JPEG", "TIFF"])
def test_cmyk_is_converted_by_its_profile(format_: str):
    stored = Image.new("CMYK", (60, 40), (0, 255, 255, 0))  # paper, with these inks
    ImageDraw.Draw(stored).rectangle((0, 0, 30, 20), fill=(255, 0, 0, 0))
    image = load_image(encoded(stored, format_, icc_profile=inks()))
    red, green, blue = image.getpixel((5, 5))
    assert red > 150
    assert max(green, blue) < 90
    assert min(image.getpixel((55, 35))) > 245


@pytest.mark.parametrize(
    "profile",
    [
        b"no profile",
        swapped()[:200],
        inks(),  # of another colour space
        srgb() + b"mpet",  # may ask for any number of calculations
        srgb().ljust((8 << 20) + 1, b"\0"),
    ],
    ids=["text", "cut short", "cmyk", "calculations", "huge"],
)
def test_a_broken_profile_is_left_out_with_a_warning(profile: bytes):
    opened = open_image(encoded(picture(), "TIFF", icc_profile=profile))
    assert_picture(opened.decode(), BLUE, RED)
    assert opened.warnings == ["colour_profile"]


def grey_png(values: Image.Image, significant_bits: int | None = None) -> bytes:
    data = encoded(values, "PNG")
    if significant_bits is None:
        return data
    kind = b"sBIT" + bytes([significant_bits])
    return data[:33] + struct.pack(">I", 1) + kind + struct.pack(">I", zlib.crc32(kind)) + data[33:]


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
def test_grey_values_have_the_smallest_usual_depth_that_holds_them(bits: int, format_: str):
    white = (1 << bits) - 1
    rows = [[white // 2] * 30 + [white] * 30] * 20 + [[white] * 60] * 20
    raw = b"".join(struct.pack("<60H", *row) for row in rows)
    values = Image.frombytes("I;16", (60, 40), raw)
    image = load_image(encoded(values, format_))
    assert image.getpixel((55, 35)) == (255, 255, 255)
    assert image.getpixel((5, 5)) == (127, 127, 127)


@pytest.mark.parametrize(
    ("significant_bits", "value", "grey"),
    [
        (None, 1000, 249),  # of 1023
        (12, 1000, 62),  # of 4095, as the file says
        (16, 1000, 3),
        (10, 40_000, 155),  # the values were scaled to 16 bits, as the standard has it
        (0, 1000, 249),  # cannot be
        (17, 1000, 249),
    ],
)
def test_a_png_says_how_many_bits_are_used(significant_bits: int | None, value: int, grey: int):
    image = load_image(grey_png(Image.new("I;16", (60, 40), value), significant_bits))
    assert image.getpixel((5, 5)) == (grey, grey, grey)


def logo(colour: tuple[int, int, int]) -> Image.Image:
    """A disc on transparency."""
    shape = Image.new("L", (200, 160), 0)
    ImageDraw.Draw(shape).ellipse((40, 20, 160, 140), fill=255)
    image = Image.new("RGB", shape.size, colour)
    image.putalpha(shape)
    return image


@pytest.mark.parametrize("format_", ["PNG", "WEBP", "AVIF", "TIFF"])
def test_a_white_shape_on_transparency_is_laid_over_black(format_: str):
    seen = load_image(encoded(logo((255, 255, 255)), format_))
    assert min(seen.getpixel((100, 80))) >= 250
    assert max(seen.getpixel((5, 5))) <= 5


@pytest.mark.parametrize("mode", ["LA", "P"])
def test_a_white_shape_in_grey_or_a_palette_is_laid_over_black(mode: str):
    seen = load_image(encoded(logo((255, 255, 255)).convert(mode), "PNG"))
    assert seen.getpixel((100, 80)) == (255, 255, 255)
    assert seen.getpixel((5, 5)) == (0, 0, 0)


@pytest.mark.parametrize("colour", [(0, 0, 0), (200, 30, 40), (255, 255, 0), (190, 190, 190)])
def test_a_shape_that_shows_on_white_is_laid_over_white(colour: tuple[int, int, int]):
    seen = load_image(encoded(logo(colour), "PNG"))
    assert seen.getpixel((100, 80)) == colour
    assert seen.getpixel((5, 5)) == (255, 255, 255)


def test_a_wholly_transparent_picture_is_white():
    clear = picture()
    clear.putalpha(0)
    assert load_image(encoded(clear, "PNG")).getextrema() == ((255, 255),) * 3


@pytest.mark.parametrize("format_", ["GIF", "PNG", "WEBP", "AVIF"])
@pytest.mark.parametrize("blank", [1, 3])
def test_the_first_frame_that_is_not_blank_is_taken(format_: str, blank: int):
    shades = [Image.new("RGB", (60, 40), (40 * n, 40 * n, 40 * n)) for n in range(blank)]
    frames = [*shades[1:], picture(), picture().rotate(180)]
    data = encoded(shades[0], format_, save_all=True, append_images=frames)
    assert_picture(load_image(data), BLUE, RED)


def test_a_transparent_first_frame_is_blank():
    clear = picture().convert("RGBA")
    clear.putalpha(0)
    frames = [picture().convert("RGBA")]
    data = encoded(clear, "WEBP", save_all=True, append_images=frames, lossless=True)
    assert_picture(load_image(data), BLUE, RED)


@pytest.mark.parametrize("format_", ["GIF", "PNG", "WEBP"])
def test_of_blank_frames_the_first_is_taken(format_: str):
    frames = [Image.new("RGB", (60, 40), colour) for colour in ("red", "green", "blue")]
    data = encoded(frames[0], format_, save_all=True, append_images=frames[1:])
    assert max(load_image(data).getpixel((5, 5))) == load_image(data).getpixel((5, 5))[0] > 200


def test_frames_are_decoded_up_to_the_limit_in_pixels_only():
    frames = [Image.new("RGB", (60, 40), (n, n, n)) for n in range(1, 40)]
    data = encoded(
        Image.new("RGB", (60, 40)), "GIF", save_all=True, append_images=[*frames, picture()]
    )
    assert_picture(load_image(data), BLUE, RED)
    assert load_image(data, max_pixels=20 * 60 * 40).getpixel((5, 5)) == (0, 0, 0)


def test_icc_profiles_are_read_as_written():
    """The profiles of these tests are sound: Little CMS reads them."""
    for profile, space in ((swapped(), "RGB"), (inks(), "CMYK")):
        read = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        assert read.profile.xcolor_space.strip() == space
