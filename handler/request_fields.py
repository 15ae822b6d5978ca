"""Reads one request from the fields that TorchServe gives: a body, a form or a gRPC message.

TorchServe gives the handler one mapping for each request. It has the key `body` for raw bytes or
JSON, the fields of a form, or the keys of a gRPC message. On the routes that pass a query on, it
also has the query's parameters. The picture is the bytes of a file, or base64 in a JSON document
(`request_document.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from handler.caption_request import HOW_TO_SEND, CaptionRequest, Form, RequestRefusal
from handler.request_document import parse_document
from model.options import GenerationOptions

#: Fields that may hold the picture (or a JSON document that holds it).
PICTURE_FIELDS = ("body", "data", "image", "file")
#: Fields that TorchServe's own routes add; they are not options.
ROUTE_FIELDS = ("model_name",)

_FORM = "application/x-www-form-urlencoded"


def parse_request(
    fields: Mapping[str, Any],
    headers: Mapping[str, Any],
    defaults: GenerationOptions,
    max_pictures: int,
) -> CaptionRequest:
    """Read one request of a TorchServe batch.

    Args:
        fields: The request as TorchServe gives it: name -> bytes, text or parsed JSON.
        headers: HTTP headers, their names as the client wrote them, and for each field its
            content type.
        defaults: Options where the request gives none.
        max_pictures: Pictures that one KServe request may hold.

    Raises:
        RequestRefusal: It holds no picture, two, too many, or cannot be read.
        UnknownOption: It gives an option that does not exist.
        BadOption: It gives an option a value it cannot take.
    """
    if not fields and _is(headers, "describe", "true"):
        return CaptionRequest([], [], Form.DESCRIPTION)
    given = {name: value for name, value in fields.items() if name not in ROUTE_FIELDS}
    if _is(headers, "explain", "true"):
        raise RequestRefusal(
            "no_explanations", "captions have no explanations; ask /predictions instead"
        )
    holders = [name for name in PICTURE_FIELDS if name in given]
    if not holders:
        raise _no_picture(headers)
    if len(holders) > 1:
        raise RequestRefusal(
            "bad_request",
            f"the request holds {len(holders)} pictures, in the fields {' and '.join(holders)}; "
            "send one",
        )
    value = given.pop(holders[0])
    options = defaults.updated({name: _text(text) for name, text in given.items()})
    document = _document(value, _content_type(headers, holders[0]))
    if document is None:
        return CaptionRequest([_as_bytes(value)], [options])
    return parse_document(document, options, max_pictures)


def is_rest(headers: Mapping[str, Any]) -> bool:
    """Whether a request came over HTTP: gRPC requests have content types but no headers."""
    return any(
        isinstance(value, str) and not name.startswith("ts_request_sequence")
        for name, value in headers.items()
    )


def _is(headers: Mapping[str, Any], name: str, value: str) -> bool:
    return str(headers.get(name)).lower() == value


def _content_type(headers: Mapping[str, Any], field: str) -> str:
    declared = headers.get(field)
    text = declared.get("content-type") if isinstance(declared, Mapping) else None
    return str(text or "").lower()


def _no_picture(headers: Mapping[str, Any]) -> RequestRefusal:
    kinds = [
        value
        for name, value in headers.items()
        if name.lower() == "content-type" and isinstance(value, str)
    ]
    if any(kind.lower().startswith(_FORM) for kind in kinds):
        # `curl --data-binary @photo.jpg` declares a form unless told otherwise, and TorchServe then
        # drops the bytes.
        return RequestRefusal(
            "no_image",
            f"the request is declared as a form ({_FORM}) but has no picture in it; with curl "
            "--data-binary add -H 'Content-Type: application/octet-stream', or use -T photo.jpg",
        )
    return RequestRefusal(
        "no_image",
        f"the request holds no picture (fields {', '.join(PICTURE_FIELDS)}); {HOW_TO_SEND}",
    )


def _as_bytes(value: Any) -> bytes | bytearray:
    # TorchServe decodes text/* bodies to text; this restores the bytes.
    return value if isinstance(value, bytes | bytearray) else str(value).encode()


def _text(value: Any) -> Any:
    if isinstance(value, bytes | bytearray):
        return value.decode("utf-8", errors="replace")
    return value


def _document(value: Any, content_type: str) -> Any:
    """The JSON document in a field, or None if the field holds the bytes of a file."""
    declared = content_type.startswith("application/json")
    if not isinstance(value, str | bytes | bytearray) or (declared and isinstance(value, str)):
        return value if value is not None else {}  # TorchServe has parsed the document
    data = _as_bytes(value)
    looks_like_json = data[:64].lstrip().startswith((b"{", b"["))
    if not looks_like_json and not (declared and _is_text(data)):
        return None
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RequestRefusal(
            "bad_json", f"the body is not valid JSON ({str(error)[:100]}); {HOW_TO_SEND}"
        ) from None


def _is_text(data: bytes | bytearray) -> bool:
    """Whether these bytes are UTF-8, as JSON is and the bytes of a picture are not."""
    try:
        return bool(data.decode())
    except UnicodeDecodeError:
        return False
