"""What a picture file may cost to read, beyond what its size in pixels says.

A file of a few bytes can keep a decoder busy for minutes: with an area that is gone over again and
again, with tiles far larger than the picture, with parts that Pillow reads one by one in Python.
Each limit here is far from what cameras and programs write, and keeps a file to a few seconds.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from typing import Any

from PIL import Image

from model.image.refusals import ImageRefusal, damaged, too_large

#: Parts that a JPEG (before its first scan) or a PNG may have, bytes that belong to none, and tiles
#: or strips of a TIFF.
MAX_PARTS = 1 << 16
#: Parts of a JPEG with EXIF; Pillow joins them one by one. Programs write one, of 64 kB at most.
MAX_EXIF = 64
#: Times that a JPEG may go over its whole area, refining it (`progressive`); encoders take about
#: ten. Every one costs as much as decoding the picture once, and a few bytes of the file.
MAX_SCANS = 64
#: Pixels that all scans of a JPEG may go over, as a multiple of the pixels allowed: the usual ten,
#: and 18 of four inks.
MAX_SCANNED = 24
#: Pixels of a run-length encoded BMP, and runs in the file (2 bytes each): Pillow decodes them in
#: Python, a million within a second.
MAX_RUNS = 1 << 21
#: Pixels of a TIFF's tiles that are fine however small the picture or the limit is.
SMALL_TILES = 1 << 20

_PNG = b"\x89PNG\r\n\x1a\n"
#: A marker of a JPEG: neither an escaped byte of a scan, nor one of the marks to resume at.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_START_OF_SCAN, _END, _APP1 = 0xDA, 0xD9, 0xE1
#: Markers that nothing belongs to: TEM, SOI, EOI.
_ALONE = (0x01, 0xD8, _END)
#: Frames with arithmetic coding, which takes many times as long as Huffman's; browsers refuse it.
_ARITHMETIC = (0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
#: BMP's codes for run-length encoding, of 8 bits and of 4.
_RUN_LENGTH = (1, 2)
#: Beginnings of a TIFF: byte order, and the size of the numbers that say where things are.
_TIFF = {b"II*\0": ("<", 4), b"MM\0*": (">", 4), b"II+\0": ("<", 8), b"MM\0+": (">", 8)}
#: TIFF tags: where its strips or tiles begin, how many bytes each has, and the sides of a tile.
_OFFSETS, _COUNTS, _TILE_SIDES = (273, 324), (279, 325), (322, 323)


def check_parts(data: bytes | bytearray) -> None:
    """Refuse a file whose parts alone would take long, before Pillow reads them.

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
    """Refuse what would take far more time or memory than the size of the picture says.

    Args:
        image: Opened, and not decoded yet.
        data: Its file.
        limit: Pixels allowed.

    Raises:
        ImageRefusal: It would.
    """
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})  # of a TIFF
    pixels = image.width * image.height
    scans, pieces = 0, _pieces(tags, len(data))
    if sum(size for _, size in pieces) > 2 * len(data):
        raise ImageRefusal(
            "image_too_large",
            f"the {len(pieces)} strips or tiles of the TIFF share their bytes; save it again",
        )
    if image.format in ("JPEG", "MPO"):
        scans = sum(marker == _START_OF_SCAN for marker, _, _ in _segments(data))
    elif image.info.get("compression") in ("jpeg", "tiff_jpeg"):
        # Each strip or tile is a JPEG of its own.
        mark = bytes([0xFF, _START_OF_SCAN])
        scans = sum(data.count(mark, start, start + size) for start, size in pieces)
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
    """Tiles may reach over the edges of their picture, but not by far."""
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
    """A TIFF's list of tags: each strip or tile that it counts is an object of Pillow's."""
    order, wide = _TIFF[bytes(data[:4])]
    # Numbers of 4 bytes, or of 8 (BigTIFF): the list's place; then how many, and each entry.
    place, entry = (order + "I", order + "HHI") if wide == 4 else (order + "Q", order + "HHQ")
    number, step = (order + "H", 12) if wide == 4 else (order + "Q", 20)
    try:
        (at,) = struct.unpack_from(place, data, wide)
        if at >= len(data):
            return  # cut short, or damaged: Pillow refuses it
        (entries,) = struct.unpack_from(number, data, at)
        at += struct.calcsize(number)
        for index in range(min(entries, MAX_PARTS)):
            tag, _, count = struct.unpack_from(entry, data, at + step * index)
            if tag in _OFFSETS and count > MAX_PARTS:
                raise _too_many("strips or tiles", MAX_PARTS)
    except struct.error:
        return  # cut short: Pillow refuses it


def _pieces(tags: Mapping[int, Any], size: int) -> list[tuple[int, int]]:
    """First byte and size of each strip or tile of a TIFF, as far as they are in the file.

    One without a size may be all of it.
    """
    found = []
    for offsets, counts in zip(_OFFSETS, _COUNTS, strict=True):
        starts, sizes = (_numbers(tags.get(tag, ())) for tag in (offsets, counts))
        sizes += [size] * (len(starts) - len(sizes))
        found += [
            (start, min(own, max(0, size - start)))
            for start, own in zip(starts, sizes, strict=False)
        ]
    return found


def _numbers(value: Any) -> list[int]:
    """What a tag says as a list: Pillow gives a single number, several, or bytes."""
    several = value if isinstance(value, tuple | bytes) else (value,)
    return [number for number in several if isinstance(number, int)]


def _check_segments(data: bytes | bytearray) -> None:
    """A JPEG as far as Pillow reads it in Python: to its first scan."""
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
    """Each marker of a JPEG up to the end of the picture, where it stands, and where it ends."""
    at, scanned = 2, False
    while found := _MARKER.search(data, at):
        marker = data[found.end() - 1]
        if marker == _END and scanned:
            return
        scanned |= marker == _START_OF_SCAN
        yield marker, found.start(), found.end()
        at = _segment_end(data, marker, found.end())


def _segment_end(data: bytes | bytearray, marker: int, at: int) -> int:
    """Where the segment of a marker that ends at a place is over."""
    return at if marker in _ALONE else at + int.from_bytes(data[at : at + 2], "big")


def _check_chunks(data: bytes | bytearray) -> None:
    """The chunks of a PNG, which Pillow reads in Python; it unpacks every colour profile."""
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
