"""Pictures that come as text: base64 or a `data:` URL; and URLs, which are not fetched here.

A member of a JSON document is always text. A body or a field of a form usually has the bytes of a
picture file, and may have text instead. It is taken for base64 only if it decodes to the beginning
of a picture file and does not begin like one itself.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from handler.requests.caption_request import RequestRefusal
from handler.requests.values import kind_of
from model.image.refusals import begins_as_known_format

#: Most characters of a `data:` URL before its comma.
_DATA_HEAD = 200
#: Bytes of a body that show whether it is text, and base64 characters that show of what.
_HEAD, _FIRST = 256, 24
_URL = re.compile(r"\s*[a-z][a-z0-9+.-]{0,15}://", re.IGNORECASE)
_BASE64 = re.compile(rb"[A-Za-z0-9+/_=\s-]+")
_URLSAFE = {ord("-"): "+", ord("_"): "/"}


def refused_url(where: str) -> RequestRefusal:
    """The refusal of a URL in the place of a picture; `where` is that place, for the message."""
    return RequestRefusal(
        "no_urls",
        f"{where} is a URL; this server fetches no pictures; send the bytes of the file, or ask "
        "the gateway, which fetches pictures if it is started with GATEWAY_FETCH_URLS=true",
    )


def decode_base64(value: Any, where: str) -> bytes:
    """Bytes from base64 text or a `data:` URL.

    Args:
        value: Any JSON value. Text may be in the standard or the URL-safe alphabet, with or
            without line breaks and padding.
        where: Its place in the request, for messages.

    Raises:
        RequestRefusal: It is no text, a URL of another kind, or not base64.
    """
    if not isinstance(value, str):
        raise RequestRefusal(
            "bad_base64", f'"{where}" is {kind_of(value)}; it must be a picture file as base64 text'
        )
    if _URL.match(value):
        raise refused_url(f'"{where}"')
    text = value.lstrip() if value[:1].isspace() else value
    if text[:5].lower() == "data:":
        head, comma, rest = text[:_DATA_HEAD].partition(",")
        if not comma or not head.lower().rstrip().endswith(";base64"):
            raise RequestRefusal(
                "bad_base64",
                f'"{where}" is a data: URL that begins {text[:40]!r}; it must begin with '
                "data:image/...;base64, and go on with base64 text",
            )
        text = rest + text[_DATA_HEAD:]
    text = "".join(text.split()).translate(_URLSAFE)
    if not text.endswith("="):
        text += "=" * (-len(text) % 4)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestRefusal(
            "bad_base64",
            f'"{where}" is not valid base64 ({error}); encode the bytes of the '
            "picture file, e.g. with base64 -w0 photo.jpg",
        ) from None


def decoded_or_refusal(value: Any, where: str) -> bytes | RequestRefusal:
    """One of several pictures from base64, or why it is not; see `decode_base64`."""
    try:
        return decode_base64(value, where)
    except RequestRefusal as refusal:
        return refusal


def picture_file(data: bytes | bytearray, where: str) -> bytes | bytearray:
    """The bytes of a picture file, from a body or a field that may hold it as text.

    Args:
        data: The bytes as they came.
        where: Their place in the request, for messages.

    Returns:
        What base64 text decodes to if that begins like a picture file. Everything else is returned
        as it is, for the decoder to judge.

    Raises:
        RequestRefusal: It is a URL, or base64 text that is damaged.
    """
    head = bytes(data[:_HEAD])
    if begins_as_known_format(head.lstrip()):
        return data
    if _URL.match(head.decode("latin-1")):
        raise refused_url(f'"{where}"')
    if head.lstrip()[:5].lower() == b"data:" or _is_base64_of_a_picture(head):
        return decode_base64(data.decode("ascii", errors="replace"), where)
    return data


def _is_base64_of_a_picture(head: bytes) -> bool:
    """Whether text that begins like this is base64 of a file in a known format."""
    if not _BASE64.fullmatch(head):
        return False
    first = b"".join(head.split())[:_FIRST].rstrip(b"=")
    first = first[: len(first) // 4 * 4]
    try:
        return begins_as_known_format(base64.b64decode(first, altchars=b"-_").lstrip())
    except binascii.Error:  # a "=" in the middle
        return False
