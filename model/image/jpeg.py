"""The parts of a JPEG file (ITU-T T.81, annex B): what decoding will cost, and whether it is whole.

Pillow reads a JPEG part by part in Python up to its first scan, and libjpeg the rest. Both take
time for each part, and libjpeg decodes the whole area again for each scan. So the parts are read
here first, once, and counted.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

from model.image.refusals import ImageRefusal, too_many

#: Most parts of a JPEG: its markers, and each byte between two parts before the first scan.
MAX_PARTS = 1 << 16
#: Most EXIF parts; Pillow joins them one by one. Programs write one of 64 kB at most.
MAX_EXIF = 64

#: First bytes of a JPEG.
SIGNATURE = b"\xff\xd8\xff"
#: A marker that begins a part: no escaped byte of a scan, and no restart marker.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_START_OF_SCAN, _END, _APP1 = 0xDA, 0xD9, 0xE1
#: Markers without content: TEM, SOI, EOI.
_WITHOUT_CONTENT = (0x01, 0xD8, _END)
#: Frames with Huffman coding, baseline or extended; and progressive.
_SEQUENTIAL, _PROGRESSIVE = (0xC0, 0xC1), 0xC2
#: Frames with arithmetic coding. It takes many times as long as Huffman coding; browsers refuse it.
_ARITHMETIC = (0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
#: The 64 coefficients of a block, one bit each.
_ALL_COEFFICIENTS = (1 << 64) - 1


@dataclasses.dataclass
class JpegParts:
    """What the parts of a JPEG tell about it.

    Attributes:
        scans: Number of scans.
        buffered: The decoder keeps the coefficients of the whole image, 2 bytes each, because
            the first scan does not hold all of it.
        ended: The end marker is there.
        complete: The scans that have begun hold all bits of all coefficients.
    """

    scans: int = 0
    buffered: bool = False
    ended: bool = False
    complete: bool = False


def read_parts(data: bytes | bytearray) -> JpegParts:
    """Read the parts of a JPEG.

    Args:
        data: A file that begins with `SIGNATURE`.

    Raises:
        ImageRefusal: Too many parts, or arithmetic coding.
    """
    found = JpegParts()
    components: list[int] = []
    sent: dict[int, int] = {}  # component -> its coefficients that have all their bits
    number, exif, end = 0, 0, 2
    for marker, start, at in _markers(data):
        number += 1
        if not found.scans:
            number += start - end
            exif += marker == _APP1 and data[at + 2 : at + 6] == b"Exif"
        if exif > MAX_EXIF:
            raise too_many("EXIF parts", MAX_EXIF)
        if number > MAX_PARTS:
            raise too_many("parts", MAX_PARTS)
        if marker in _ARITHMETIC:
            raise ImageRefusal(
                "image_format",
                "JPEG files with arithmetic coding are not accepted; save the picture as a usual "
                "JPEG, or as PNG",
            )
        if marker in _SEQUENTIAL or marker == _PROGRESSIVE:
            components = list(data[at + 8 : _part_end(data, marker, at) : 3])
            found.buffered = marker == _PROGRESSIVE
        elif marker == _START_OF_SCAN:
            found.scans += 1
            _read_scan(data[at + 2 : _part_end(data, marker, at)], sent)
            found.buffered |= len(sent) < len(components)
        elif marker == _END and found.scans:
            found.ended = True
        end = _part_end(data, marker, at)
    found.complete = bool(components) and all(
        sent.get(component) == _ALL_COEFFICIENTS for component in components
    )
    return found


def _read_scan(header: bytes | bytearray, sent: dict[int, int]) -> None:
    """Add the coefficients of a scan to those that were `sent`; a header cut short has none."""
    number = header[0] if header else 0
    if len(header) < 4 + 2 * number:
        return
    first, last, precision = header[1 + 2 * number : 4 + 2 * number]
    # The low half of `precision` is the number of bits that later scans have to add.
    coefficients = range(first, min(last, 63) + 1) if precision & 15 == 0 else range(0)
    bits = sum(1 << coefficient for coefficient in coefficients)
    for component in header[1 : 1 + 2 * number : 2]:
        sent[component] = sent.get(component, 0) | bits


def _markers(data: bytes | bytearray) -> Iterator[tuple[int, int, int]]:
    """Each marker up to the end of the image: its code, its offset, and its end."""
    at, scanned = 2, False
    while found := _MARKER.search(data, at):
        marker = data[found.end() - 1]
        yield marker, found.start(), found.end()
        scanned |= marker == _START_OF_SCAN
        if marker == _END and scanned:
            return
        at = _part_end(data, marker, found.end())


def _part_end(data: bytes | bytearray, marker: int, at: int) -> int:
    """The end of the part of a marker whose own end is `at`."""
    return at if marker in _WITHOUT_CONTENT else at + int.from_bytes(data[at : at + 2], "big")
