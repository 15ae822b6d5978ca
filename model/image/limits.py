"""Limits on the time and memory that an image file takes to decode, beyond its size in pixels.

A file of a few bytes can occupy a decoder for minutes: with many scans over the same area, with
tiles that are far larger than the image, or with parts that Pillow reads one by one in Python. Each
limit here is far above what cameras and programs write, and keeps decoding within a few seconds.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from typing import Any

from PIL import Image

from model.image.refusals import ImageRefusal, damaged, too_large

#: Most parts of a JPEG before its first scan (each byte outside of a part counts as one), of a PNG,
#: and most strips or tiles of a TIFF.
MAX_PARTS = 1 << 16
#: Most EXIF parts of a JPEG; Pillow joins them one by one. Programs write one of 64 kB at most.
MAX_EXIF = 64
#: Most scans of a progressive JPEG; encoders write about ten. A scan may take a few bytes of the
#: file, and costs as much as decoding the image once.
MAX_SCANS = 64
#: Most pixels in all scans of a JPEG together, as a multiple of the limit in pixels: enough for the
#: usual ten scans, and for the 18 of a CMYK image.
MAX_SCANNED = 24
#: Most pixels of a run-length encoded BMP, and most runs in its file (2 bytes each). Pillow decodes
#: them in Python, a million in a second.
MAX_RUNS = 1 << 21
#: Pixels in all tiles of a TIFF that are always accepted, however small the image or the limit is.
SMALL_TILES = 1 << 20

_PNG = b"\x89PNG\r\n\x1a\n"
#: A marker of a JPEG that begins a part: no escaped byte of a scan, and no restart marker.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_START_OF_SCAN, _END, _APP1 = 0xDA, 0xD9, 0xE1
#: Markers without content: TEM, SOI, EOI.
_WITHOUT_CONTENT = (0x01, 0xD8, _END)
#: Frames with arithmetic coding. It takes many times as long as Huffman coding; browsers refuse it.
_ARITHMETIC = (0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
#: BMP's codes for run-length encoding, of 8 bits and of 4.
_RUN_LENGTH = (1, 2)
#: First bytes of a TIFF -> byte order, and size of its offsets in bytes.
_TIFF = {b"II*\0": ("<", 4), b"MM\0*": (">", 4), b"II+\0": ("<", 8), b"MM\0+": (">", 8)}
#: TIFF tags of strips and tiles: offsets, sizes in bytes, and the sides of a tile.
_OFFSETS, _COUNTS, _TILE_SIDES = (273, 324), (279, 325), (322, 323)


def check_parts(data: bytes | bytearray) -> None:
    """Refuse a file with too many parts, before Pillow reads them one by one.

    Args:
        data: The whole file.

    Raises:
        ImageRefusal: Too many parts, or arithmetic coding.
    """
    if data.startswith(b"\xff\xd8\xff"):
        _check_segments(data)
    elif data.startswith(_PNG):
        _check_chunks(data)
    elif bytes(data[:4]) in _TIFF:
        _check_directory(data)


def check_cost(image: Image.Image, data: bytes | bytearray, limit: int) -> None:
    """Refuse an image that would take far more time or memory than its size in pixels implies.

    Args:
        image: The image after `Image.open`, not decoded yet.
        data: Its file.
        limit: The limit of width x height.

    Raises:
        ImageRefusal: Too many scans, runs or pixels in tiles, or strips that share their bytes.
    """
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})  # Pillow's name; only a TIFF has them
    pixels = image.width * image.height
    scans, pieces = 0, _pieces(tags, len(data))
    if sum(size for _, size in pieces) > 2 * len(data):
        raise ImageRefusal(
            "image_too_large",
            f"the {len(pieces)} strips or tiles of the TIFF share their bytes; save it again",
        )
    if image.format in ("JPEG", "MPO"):
        for number, (marker, _, _) in enumerate(_segments(data)):
            if number == MAX_PARTS:  # `check_parts` counts those before the first scan only
                raise _too_many("parts", MAX_PARTS)
            scans += marker == _START_OF_SCAN
    elif image.info.get("compression") in ("jpeg", "tiff_jpeg"):
        # Each strip or tile is a JPEG of its own.
        start_of_scan = bytes([0xFF, _START_OF_SCAN])
        scans = sum(data.count(start_of_scan, start, start + size) for start, size in pieces)
    allowed = max(1, len(pieces)) * min(MAX_SCANS, max(1, MAX_SCANNED * limit // pixels))
    if scans > allowed:
        raise ImageRefusal(
            "image_too_large",
            f"the picture is a JPEG of {scans} scans; the limit is {allowed}; save it again, not "
            "as a progressive one",
        )
    if image.format == "BMP" and image.info.get("compression") in _RUN_LENGTH:
        runs = len(data) // 2
        if max(pixels, runs) > MAX_RUNS:
            raise ImageRefusal(
                "image_too_large",
                f"the picture is a run-length encoded BMP of {pixels} pixels and {runs} runs; the "
                f"limit of each is {MAX_RUNS}; save it as PNG",
            )
    _check_tiles(image, tags, len(data), limit)


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
                raise _too_many("strips or tiles", MAX_PARTS)
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


def _check_segments(data: bytes | bytearray) -> None:
    """Check a JPEG up to its first scan; Pillow reads that part in Python."""
    end, parts, exif = 2, 0, 0
    for marker, start, at in _segments(data):
        if marker in _ARITHMETIC:
            raise ImageRefusal(
                "image_format",
                "JPEG files with arithmetic coding are not accepted; save the picture as a usual "
                "JPEG, or as PNG",
            )
        parts += 1 + start - end
        exif += marker == _APP1 and data[at + 2 : at + 6] == b"Exif"
        if exif > MAX_EXIF:
            raise _too_many("EXIF parts", MAX_EXIF)
        if parts > MAX_PARTS:
            raise _too_many("parts", MAX_PARTS)
        if marker == _START_OF_SCAN:
            return
        end = _segment_end(data, marker, at)


def _segments(data: bytes | bytearray) -> Iterator[tuple[int, int, int]]:
    """Each marker of a JPEG up to the end of the image: its code, its offset, and its end."""
    at, scanned = 2, False
    while found := _MARKER.search(data, at):
        marker = data[found.end() - 1]
        if marker == _END and scanned:
            return
        scanned |= marker == _START_OF_SCAN
        yield marker, found.start(), found.end()
        at = _segment_end(data, marker, found.end())


def _segment_end(data: bytes | bytearray, marker: int, at: int) -> int:
    """The end of the segment of a marker whose own end is `at`."""
    return at if marker in _WITHOUT_CONTENT else at + int.from_bytes(data[at : at + 2], "big")


def _check_chunks(data: bytes | bytearray) -> None:
    """Check the chunks of a PNG: Pillow reads them in Python, and unpacks every colour profile."""
    at, profiles = len(_PNG), 0
    for _ in range(MAX_PARTS):
        kind = data[at + 4 : at + 8]
        if len(kind) < 4 or kind == b"IEND":
            return
        profiles += kind == b"iCCP"
        if profiles > 1:
            raise _too_many("colour profile", 1)
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    raise _too_many("parts", MAX_PARTS)


def _too_many(what: str, limit: int) -> ImageRefusal:
    return ImageRefusal(
        "image_too_large",
        f"the picture file has more than {limit} {what}; save the picture again",
    )
