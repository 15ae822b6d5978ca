"""Limits on the time and memory that an image file takes to decode, beyond its size in pixels.

A file of a few bytes can occupy a decoder for minutes: with many scans over the same area, with
tiles that are far larger than the image, or with parts that Pillow reads one by one in Python. Each
limit here is far above what cameras and programs write, and keeps decoding within a few seconds.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from model.image.jpeg import JpegParts
from model.image.refusals import ImageRefusal, damaged, too_large, too_many

#: Most parts of a PNG, and most strips or tiles of a TIFF.
MAX_PARTS = 1 << 16
#: Most blocks of a GIF. They have 255 bytes or less, and Pillow reads some one by one in Python.
MAX_BLOCKS = 1 << 18
#: Most scans of a progressive JPEG; encoders write about ten. A scan may take a few bytes of the
#: file, and costs as much as decoding the image once.
MAX_SCANS = 64
#: Most pixels in all scans of a JPEG together, as a multiple of the limit in pixels: enough for the
#: usual ten scans, and for the 18 of a CMYK image.
MAX_SCANNED = 24
#: Most pixels of a JPEG that is decoded at a fraction of its size, as a multiple of the limit in
#: pixels: enough for the 200 megapixels of a phone. It takes about as long as others at full size.
REDUCED_RATIO = 5
#: Most bytes of coefficients that a progressive JPEG needs for each pixel of the limit: those of
#: four components of 2 bytes.
MAX_COEFFICIENT_BYTES = 8
#: Most pixels of a run-length encoded BMP, and most runs in its file (2 bytes each). Pillow decodes
#: them in Python, a million in a second.
MAX_RUNS = 1 << 21
#: Pixels in all tiles of a TIFF that are always accepted, however small the image or the limit is.
SMALL_TILES = 1 << 20

_PNG = b"\x89PNG\r\n\x1a\n"
_GIF = (b"GIF87a", b"GIF89a")
_START_OF_SCAN = b"\xff\xda"
#: BMP's codes for run-length encoding, of 8 bits and of 4.
_RUN_LENGTH = (1, 2)
#: First bytes of a TIFF -> byte order, and size of its offsets in bytes.
_TIFF = {b"II*\0": ("<", 4), b"MM\0*": (">", 4), b"II+\0": ("<", 8), b"MM\0+": (">", 8)}
#: TIFF tags of strips and tiles: offsets, sizes in bytes, and the sides of a tile.
_OFFSETS, _COUNTS, _TILE_SIDES = (273, 324), (279, 325), (322, 323)


def check_parts(data: bytes | bytearray) -> None:
    """Refuse a PNG, GIF or TIFF with too many parts, before Pillow reads them one by one.

    The parts of a JPEG are counted in `jpeg.py`.

    Args:
        data: The whole file.

    Raises:
        ImageRefusal: Too many parts.
    """
    if data.startswith(_PNG):
        _check_chunks(data)
    elif data.startswith(_GIF):
        _check_blocks(data)
    elif bytes(data[:4]) in _TIFF:
        _check_directory(data)


def check_jpeg(image: JpegImageFile, parts: JpegParts, limit: int) -> None:
    """Refuse a JPEG that would take far more time or memory than others.

    Args:
        image: The image after its header is read, before `draft`.
        parts: Its parts.
        limit: The limit of width x height of an image that is decoded at its full size.

    Raises:
        ImageRefusal: Too many pixels, coefficients or scans.
    """
    pixels = image.width * image.height
    if pixels > REDUCED_RATIO * limit:
        size = f"{image.width} x {image.height} = {pixels}"
        raise too_large(size, REDUCED_RATIO * limit)
    if coefficient_bytes(image, parts) > MAX_COEFFICIENT_BYTES * limit:
        raise ImageRefusal(
            "image_too_large",
            f"the picture is a progressive JPEG of {image.width} x {image.height} pixels, which "
            f"need {coefficient_bytes(image, parts)} bytes to decode; the limit is "
            f"{MAX_COEFFICIENT_BYTES * limit}; save it again, not as a progressive one",
        )
    _check_scans(parts.scans, 1, pixels, limit)


def coefficient_bytes(image: JpegImageFile, parts: JpegParts) -> int:
    """Bytes of the coefficients that libjpeg keeps while it decodes a JPEG of several scans."""
    if not parts.buffered:
        return 0
    across = max([1, *(component[1] for component in image.layer)])
    down = max([1, *(component[2] for component in image.layer)])
    shares = sum(component[1] * component[2] for component in image.layer)
    return 2 * image.width * image.height * shares // (across * down)


def check_cost(image: Image.Image, data: bytes | bytearray, limit: int) -> None:
    """Refuse an image that would take far more time or memory than its size in pixels implies.

    Args:
        image: The image after `Image.open`, not decoded yet; no JPEG.
        data: Its file.
        limit: The limit of width x height.

    Raises:
        ImageRefusal: Too many pixels, scans, runs or pixels in tiles, or strips that share their
            bytes.
    """
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})  # Pillow's name; only a TIFF has them
    pixels = image.width * image.height
    if pixels > limit:
        raise too_large(f"{image.width} x {image.height} = {pixels}", limit)
    pieces = _pieces(tags, len(data))
    if sum(size for _, size in pieces) > 2 * len(data):
        raise ImageRefusal(
            "image_too_large",
            f"the {len(pieces)} strips or tiles of the TIFF share their bytes; save it again",
        )
    if image.info.get("compression") in ("jpeg", "tiff_jpeg"):
        # Each strip or tile is a JPEG of its own.
        scans = sum(data.count(_START_OF_SCAN, start, start + size) for start, size in pieces)
        _check_scans(scans, max(1, len(pieces)), pixels, limit)
    if image.format == "BMP" and image.info.get("compression") in _RUN_LENGTH:
        runs = len(data) // 2
        if max(pixels, runs) > MAX_RUNS:
            raise ImageRefusal(
                "image_too_large",
                f"the picture is a run-length encoded BMP of {pixels} pixels and {runs} runs; the "
                f"limit of each is {MAX_RUNS}; save it as PNG",
            )
    _check_tiles(image, tags, len(data), limit)


def _check_scans(scans: int, pieces: int, pixels: int, limit: int) -> None:
    """Refuse too many scans in an image of `pixels`, which is divided into `pieces`."""
    allowed = pieces * min(MAX_SCANS, max(1, MAX_SCANNED * limit // pixels))
    if scans > allowed:
        raise ImageRefusal(
            "image_too_large",
            f"the picture is a JPEG of {scans} scans; the limit is {allowed}; save it again, not "
            "as a progressive one",
        )


def _check_tiles(image: Image.Image, tags: Mapping[int, Any], size: int, limit: int) -> None:
    """Refuse tiles that reach far beyond the edges of their image."""
    width, height = (tags.get(tag, 0) for tag in _TILE_SIDES)
    if not isinstance(width, int) or not isinstance(height, int):
        raise damaged(size)
    if width <= 0 or height <= 0:
        return
    number = -(-image.width // width) * -(-image.height // height)
    allowed = max(2 * limit, SMALL_TILES)
    if number * width * height > allowed:
        area = f"tiles of {width} x {height} ({number}): {number * width * height}"
        raise too_large(area, allowed)


def _check_directory(data: bytes | bytearray) -> None:
    """Refuse a TIFF with too many strips or tiles: Pillow makes an object of each."""
    order, offset_size = _TIFF[bytes(data[:4])]
    if offset_size == 4:
        offset_format, number_format, entry_format, entry_size = "I", "H", "HHI", 12
    else:  # BigTIFF
        offset_format, number_format, entry_format, entry_size = "Q", "Q", "HHQ", 20
    try:
        (at,) = struct.unpack_from(order + offset_format, data, offset_size)
        if at >= len(data):
            return  # cut short, or damaged: Pillow refuses it
        (entries,) = struct.unpack_from(order + number_format, data, at)
        at += struct.calcsize(order + number_format)
        for index in range(min(entries, MAX_PARTS)):
            tag, _, count = struct.unpack_from(order + entry_format, data, at + entry_size * index)
            if tag in _OFFSETS and count > MAX_PARTS:
                raise too_many("strips or tiles", MAX_PARTS)
    except struct.error:
        return  # cut short: Pillow refuses it


def _pieces(tags: Mapping[int, Any], size: int) -> list[tuple[int, int]]:
    """Offset and size in bytes of each strip or tile of a TIFF, cut off at the end of the file.

    Args:
        tags: The tags of the TIFF.
        size: Size of the file; also taken as the size of a strip or tile that has none.
    """
    found = []
    for offsets, counts in zip(_OFFSETS, _COUNTS, strict=True):
        starts, sizes = (_numbers(tags.get(tag, ())) for tag in (offsets, counts))
        sizes += [size] * (len(starts) - len(sizes))
        found += [
            (start, min(length, max(0, size - start)))
            for start, length in zip(starts, sizes, strict=False)
        ]
    return found


def _numbers(value: Any) -> list[int]:
    """The value of a tag as a list: Pillow gives one number, a tuple of numbers, or bytes."""
    values = value if isinstance(value, tuple | bytes) else (value,)
    return [number for number in values if isinstance(number, int)]


def _check_chunks(data: bytes | bytearray) -> None:
    """Check the chunks of a PNG: Pillow reads them in Python, and unpacks every colour profile."""
    at, profiles = len(_PNG), 0
    for _ in range(MAX_PARTS):
        kind = data[at + 4 : at + 8]
        if len(kind) < 4 or kind == b"IEND":
            return
        profiles += kind == b"iCCP"
        if profiles > 1:
            raise too_many("colour profile", 1)
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    raise too_many("parts", MAX_PARTS)


def _check_blocks(data: bytes | bytearray) -> None:
    """Check the blocks of a GIF: Pillow reads those that are not image data in Python."""

    def after_colours(at: int, flags: int) -> int:
        """The end of the colour table at `at`, if `flags` says that there is one."""
        return at + (3 << (flags & 7) + 1 if flags & 128 else 0)

    at, blocks = after_colours(13, data[10] if len(data) > 10 else 0), 0
    while at < len(data) and data[at] in b"!,":
        if data[at] == ord("!"):  # an extension
            at += 2
        else:  # an image
            at = after_colours(at + 10, data[at + 9] if at + 9 < len(data) else 0) + 1
        while at < len(data) and data[at]:
            blocks += 1
            if blocks > MAX_BLOCKS:
                raise too_many("blocks", MAX_BLOCKS)
            at += 1 + data[at]
        at += 1
