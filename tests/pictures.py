"""Pictures of every kind people send, sound and broken, for unit and integration tests."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import pillow_heif
import pytest
from PIL import Image, ImageDraw

from model.image.decode import load_image
from model.image.refusals import ImageRefusal

pillow_heif.register_heif_opener()  # also to write HEIC

BLUE, RED = (10, 20, 220), (200, 30, 40)
HEIC_HEADER = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
#: Files that are often sent and not accepted, by the name that the refusal must give them.
OTHER_FORMATS = {
    "SVG": b'<?xml version="1.0"?>\n<!-- drawn by hand -->\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    "HTML": b"\n<!DOCTYPE html>\n<html><body>a page that shows a picture</body></html>",
    "CR3": b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom",
    "AVI": b"RIFF\x24\0\0\0AVI LIST\x10\0\0\0hdrl",
    "QuickTime": b"\0\0\0\x14ftypqt  \0\0\0\0qt  ",
    "WAV": b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0",
}


def picture(size: tuple[int, int] = (60, 40)) -> Image.Image:
    """Red, with a blue quarter at the top left: turning it shows."""
    image = Image.new("RGB", size, RED)
    ImageDraw.Draw(image).rectangle((0, 0, size[0] // 2, size[1] // 2), fill=BLUE)
    return image


def encoded(image: Image.Image, format_: str, **options: Any) -> bytes:
    """The bytes of a picture file."""
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def photo(size: tuple[int, int] = (1200, 1800), progressive: bool = False) -> bytes:
    """A JPEG with detail everywhere, in which every row is worth many bytes."""
    image = Image.blend(picture(size), Image.effect_noise(size, 60).convert("RGB"), 0.3)
    return encoded(image, "JPEG", progressive=progressive)


def half(data: bytes) -> bytes:
    """The first half of a file."""
    return data[: len(data) // 2]


def rotated_by_exif() -> bytes:
    """`picture()` stored on its side, with the EXIF mark that says so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(picture().transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)


def jpeg_of_scans(count: int) -> bytes:
    """`picture()` as a JPEG whose last scan is said again until there are so many."""
    data = encoded(picture(), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * (count - data.count(b"\xff\xda")) + data[-2:]


def arithmetic_jpeg() -> bytes:
    """A JPEG whose head says that it is coded arithmetically."""
    return encoded(picture(), "JPEG", progressive=True).replace(b"\xff\xc2", b"\xff\xca", 1)


def jpeg_with(segment: bytes, count: int) -> bytes:
    """`picture()` as a JPEG with so many segments of the same kind behind its JFIF head."""
    data = encoded(picture(), "JPEG")
    return data[:20] + segment * count + data[20:]


def png_with(kind: bytes, content: bytes, count: int) -> bytes:
    """`picture()` as a PNG with so many chunks of the same kind behind its head."""
    data = encoded(picture(), "PNG")
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    chunk = struct.pack(">I", len(content)) + kind + content + checksum
    return data[:33] + chunk * count + data[33:]


def colour_profile() -> bytes:
    """What a PNG's `iCCP` chunk holds: a name, and packed bytes."""
    return b"profile\0\0" + zlib.compress(bytes(1 << 20))


def tiled_tiff(width: int, height: int, tiles: int = 1, shared: bool = False) -> bytes:
    """Grey tiles of width x height, which few bytes inflate to, in a row; one pixel of the last.

    They may share their bytes.
    """
    tile = zlib.compress(bytes(width * height))
    tags = [(256, (tiles - 1) * width + 1), (257, 1), (258, 8), (259, 8), (262, 1), (277, 1)]
    tags += [(322, width), (323, height)]
    at = 8 + 2 + 12 * (len(tags) + 2) + 4
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags]
    step = 0 if shared else len(tile)
    content, lists = (tile if shared else tile * tiles), b""
    for tag, values in ((324, [at + step * n for n in range(tiles)]), (325, [len(tile)] * tiles)):
        place = at + len(content) + len(lists)
        entries.append(struct.pack("<HHII", tag, 4, tiles, values[0] if tiles == 1 else place))
        lists += struct.pack(f"<{tiles}I", *values)
    head = b"II*\0" + struct.pack("<IH", 8, len(entries))
    return head + b"".join(entries) + struct.pack("<I", 0) + content + lists


def striped_tiff(strips: int) -> bytes:
    """A grey column of pixels, each a strip of its own."""
    at = 8 + 2 + 12 * 9 + 4
    head = b"II*\0" + struct.pack("<IH", 8, 9)
    tags = [(256, 1), (257, strips), (258, 8), (259, 1), (262, 1)]
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags]
    entries.append(struct.pack("<HHII", 273, 4, strips, at + strips))
    entries += [struct.pack("<HHII", tag, 4, 1, 1) for tag in (277, 278)]
    entries.append(struct.pack("<HHII", 279, 4, strips, at + 5 * strips))
    places = struct.pack(f"<{strips}I", *range(at, at + strips))
    sizes = struct.pack(f"<{strips}I", *[1] * strips)
    return head + b"".join(entries) + bytes(4) + bytes(strips) + places + sizes


def run_length_bmp(width: int, more: bytes = b"") -> bytes:
    """One pixel, perhaps more runs, and the end of the line, which has that many pixels."""
    runs = b"\x01\x00" + more + b"\x00\x00" + b"\x00\x01"
    palette = bytes(4 * 256)
    at = 14 + 40 + len(palette)
    head = b"BM" + struct.pack("<IHHI", at + len(runs), 0, 0, at)
    sizes = struct.pack("<IiiHHIIiiII", 40, width, 1, 1, 8, 1, len(runs), 0, 0, 0, 0)
    return head + sizes + palette + runs


def sound() -> dict[str, bytes]:
    """Pictures that must be captioned, by what is special about them."""
    frames = [Image.new("RGB", (60, 40), "green")]
    clear = picture()
    clear.putalpha(128)
    return {
        "jpeg": encoded(picture(), "JPEG"),
        "png": encoded(picture(), "PNG"),
        "webp": encoded(picture(), "WEBP"),
        "bmp": encoded(picture(), "BMP"),
        "avif": encoded(picture(), "AVIF"),
        "heic": encoded(picture(), "HEIF"),
        "jpeg without its end": encoded(picture(), "JPEG")[:-2],
        "jpeg behind a blank line": b"\r\n" + encoded(picture(), "JPEG"),
        "run-length encoded bmp": run_length_bmp(60),
        "tiff": encoded(picture(), "TIFF"),
        "one pixel": encoded(Image.new("RGB", (1, 1), "red"), "PNG"),
        "very long": encoded(Image.new("RGB", (1, 20_000), "red"), "PNG"),
        "palette": encoded(picture().convert("P"), "PNG", transparency=0),
        "grey": encoded(picture().convert("L"), "JPEG"),
        "cmyk": encoded(picture().convert("CMYK"), "JPEG"),
        "sixteen bits": encoded(Image.new("I;16", (60, 40), 40_000), "PNG"),
        "alpha": encoded(clear, "PNG"),
        "animated": encoded(picture(), "GIF", save_all=True, append_images=frames),
        "rotated by exif": rotated_by_exif(),
    }


def broken() -> dict[str, tuple[bytes, int, str]]:
    """What must be refused: bytes, HTTP status and code."""
    return {
        "empty": (b"", 400, "empty"),
        "text": (b"this is no picture", 400, "image_undecodable"),
        "truncated jpeg": (encoded(picture(), "JPEG")[:-100], 400, "image_undecodable"),
        "only a header": (encoded(picture(), "PNG")[:30], 400, "image_undecodable"),
        "bomb": (encoded(Image.new("1", (9000, 9000)), "PNG"), 413, "image_too_large"),
        "larger bomb": (encoded(Image.new("1", (20_000, 20_000)), "PNG"), 413, "image_too_large"),
        "jpeg of many scans": (jpeg_of_scans(3000), 413, "image_too_large"),
        "jpeg of many exif parts": (
            jpeg_with(b"\xff\xe1\0\x0cExif\0\0AAAA", 200_000),
            413,
            "image_too_large",
        ),
        "arithmetic jpeg": (arithmetic_jpeg(), 415, "image_format"),
        "png of many colour profiles": (
            png_with(b"iCCP", colour_profile(), 1000),
            413,
            "image_too_large",
        ),
        "tiff of one huge tile": (tiled_tiff(16_384, 16_384), 413, "image_too_large"),
        "tiff of one tile again and again": (
            tiled_tiff(16, 3_000_000, 3000, shared=True),
            413,
            "image_too_large",
        ),
        "tiff of many strips": (striped_tiff(300_000), 413, "image_too_large"),
        "run-length encoded bmp": (run_length_bmp(4_000_000), 413, "image_too_large"),
        "pdf": (encoded(picture(), "PDF"), 415, "image_format"),
        "only a header of heic": (HEIC_HEADER, 400, "image_undecodable"),
        "avif of half its bytes": (half(encoded(picture(), "AVIF")), 400, "image_undecodable"),
        "half a photo": (half(photo()), 400, "image_undecodable"),
        "half a progressive photo": (half(photo(progressive=True)), 400, "image_undecodable"),
        **{name: (data, 415, "image_format") for name, data in OTHER_FORMATS.items()},
        "postscript": (encoded(picture(), "EPS"), 415, "image_format"),
    }


def assert_picture(image: Image.Image, top_left: tuple[int, ...], bottom_right: tuple[int, ...]):
    """Colours near two corners, with room for what JPEG and WebP lose."""
    assert image.mode == "RGB"
    near = image.getpixel((5, 5)), image.getpixel((image.width - 5, image.height - 5))
    for seen, expected in zip(near, (top_left, bottom_right), strict=True):
        assert max(abs(a - b) for a, b in zip(seen, expected, strict=True)) <= 6, near


def assert_refused(data: bytes, code: str, max_pixels: int = 50_000_000) -> str:
    """The refusal's text, after checking its code."""
    with pytest.raises(ImageRefusal) as caught:
        load_image(data, max_pixels)
    assert caught.value.code == code
    expected = {"image_too_large": 413, "image_format": 415}.get(code, 400)
    assert caught.value.status == expected
    return str(caught.value)
