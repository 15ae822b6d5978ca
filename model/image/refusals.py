"""Pictures that cannot be captioned, and why: in words for whoever sent them."""

from __future__ import annotations

from model.refusal import Refusal

#: Formats that are decoded. Pillow would open many more, and some by running other programs (EPS).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
FORMAT_NAMES = "JPEG, PNG, WebP, GIF, BMP or TIFF"

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


def too_large(size: str, limit: int) -> ImageRefusal:
    """The refusal for more pixels than are allowed."""
    return ImageRefusal(
        "image_too_large",
        f"the picture has {size} pixels; the limit is {limit}; send a smaller version",
    )


def damaged(size: int) -> ImageRefusal:
    """The refusal for a file of so many bytes that cannot be decoded."""
    return ImageRefusal(
        "image_undecodable",
        f"the picture ({size} bytes) is damaged or cut short and cannot be decoded; "
        "open it in a viewer, or send it again whole",
    )


def unrecognised(data: bytes | bytearray) -> ImageRefusal:
    """The refusal for bytes that Pillow takes for none of our formats."""
    head = bytes(data[:16])
    if head.startswith(_OUR_HEADS):
        return damaged(len(data))
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
