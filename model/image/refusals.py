"""Why an image cannot be captioned: the accepted formats, and messages for the user."""

from __future__ import annotations

from model.refusal import Refusal

#: The accepted formats: Pillow's name, the name that users know, and the bytes that files have at
#: some offsets. Pillow opens many more formats, and some of them by running other programs (EPS).
_ACCEPTED: tuple[tuple[str, str, tuple[tuple[int, bytes], ...]], ...] = (
    ("JPEG", "JPEG", ((0, b"\xff\xd8\xff"),)),
    ("PNG", "PNG", ((0, b"\x89PNG"),)),
    ("WEBP", "WebP", ((8, b"WEBP"),)),
    ("GIF", "GIF", ((0, b"GIF8"),)),
    ("BMP", "BMP", ((0, b"BM"),)),
    ("TIFF", "TIFF", ((0, b"II*\0"), (0, b"MM\0*"), (0, b"II+\0"), (0, b"MM\0+"))),
    ("AVIF", "AVIF", ((4, b"ftypavif"), (4, b"ftypavis"))),
    (
        "HEIF",
        "HEIC",
        tuple((4, b"ftyp" + brand) for brand in (b"hei", b"hev", b"mif1", b"msf1")),
    ),
)
#: Pillow's names of the accepted formats.
FORMATS = tuple(name for name, _, _ in _ACCEPTED)
_NAMES = [shown for _, shown, _ in _ACCEPTED]
#: The accepted formats in a sentence.
FORMAT_NAMES = f"{', '.join(_NAMES[:-1])} or {_NAMES[-1]}"

_STATUS = {
    "empty": 400,
    "image_undecodable": 400,
    "image_too_large": 413,
    "image_format": 415,
}

# Formats that are not accepted but often sent: offset, the bytes there, and the name.
_OTHER_FORMATS: tuple[tuple[int, bytes, str], ...] = (
    (4, b"ftypcrx", "Canon raw (CR3)"),
    (4, b"ftypqt", "video (QuickTime)"),
    (4, b"ftyp", "video (MP4)"),
    (8, b"AVI ", "video (AVI)"),
    (8, b"WAVE", "sound (WAV)"),
    (0, b"\x1aE\xdf\xa3", "video (Matroska or WebM)"),
    (0, b"FUJIFILMCCD-RAW", "Fujifilm raw (RAF)"),
    (0, b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"8BPS", "Photoshop"),
    (0, b"%!PS", "PostScript"),
    (0, b"\xc5\xd0\xd3\xc6", "PostScript"),
    (0, b"%PDF", "PDF"),
    (0, b"\x00\x00\x01\x00", "icon (ICO)"),
    (0, b"DDS ", "DDS"),
    (0, b"qoif", "QOI"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (0, b"\x1f\x8b", "gzip"),
    (0, b"PK\x03\x04", "zip"),
)


#: Bytes in which the first element of an SVG is looked for, behind declarations and comments.
_MARKUP_HEAD = 4096


class ImageRefusal(Refusal):
    """An image that cannot be captioned.

    Attributes:
        code: `empty`, `image_undecodable`, `image_too_large` or `image_format`.
        status: The HTTP status of that code: 400, 400, 413 or 415.
    """

    def __init__(self, code: str, message: str) -> None:
        """Build a refusal from a code of `_STATUS` and a message written for the user."""
        super().__init__(message)
        self.code = code
        self.status = _STATUS[code]


def too_large(size: str, limit: int) -> ImageRefusal:
    """The refusal for more pixels than are allowed."""
    return ImageRefusal(
        "image_too_large",
        f"the picture has {size} pixels; the limit is {limit}; send a smaller version",
    )


def damaged(size: int) -> ImageRefusal:
    """The refusal for a damaged file of `size` bytes."""
    return ImageRefusal(
        "image_undecodable",
        f"the picture ({size} bytes) is damaged or cut short and cannot be decoded; "
        "open it in a viewer, or send it again whole",
    )


def too_many(what: str, limit: int) -> ImageRefusal:
    """The refusal for a file of more parts than `limit`; `what` names them."""
    return ImageRefusal(
        "image_too_large",
        f"the picture file has more than {limit} {what}; save the picture again",
    )


def begins_as_known_format(data: bytes | bytearray) -> bool:
    """Whether a file begins like one of the accepted formats, or of the others named here."""
    head = bytes(data[:16])
    accepted = [start for _, _, starts in _ACCEPTED for start in starts]
    others = [(at, magic) for at, magic, _ in _OTHER_FORMATS]
    return any(head.startswith(magic, at) for at, magic in [*accepted, *others])


def unrecognised(data: bytes | bytearray) -> ImageRefusal:
    """The refusal for bytes that Pillow recognises as none of the accepted formats."""
    head = bytes(data[:16])
    if any(head.startswith(magic, at) for _, _, starts in _ACCEPTED for at, magic in starts):
        return damaged(len(data))
    text = bytes(data[:_MARKUP_HEAD]).removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return ImageRefusal(
            "image_format",
            "this is a web page (HTML), not a picture; the address that it came from may be that "
            f"of a page which shows the picture; send a {FORMAT_NAMES} file",
        )
    if text.startswith((b"<?xml", b"<!--", b"<!doctype svg", b"<svg")) and b"<svg" in text:
        return _not_accepted("SVG")
    for offset, magic, name in _OTHER_FORMATS:
        if head.startswith(magic, offset):
            return _not_accepted(name)
    return ImageRefusal(
        "image_undecodable",
        f"these bytes are no known picture format (they begin {head[:12]!r}); send a "
        f"{FORMAT_NAMES} file",
    )


def _not_accepted(name: str) -> ImageRefusal:
    return ImageRefusal(
        "image_format", f"{name} files are not accepted; convert the picture to {FORMAT_NAMES}"
    )
