"""Reads one request from the fields that TorchServe gives: a body, a form or a gRPC message.

TorchServe gives the handler one mapping for each request. It has the key `body` for raw bytes or
JSON, the fields of a form, or the keys of a gRPC message. On the routes that pass a query on, it
also has the query's parameters. The picture is the bytes of a file, its base64 text, or base64 in
a JSON document (`request_document.py`), behind which the binary extension of KServe v2 puts the
bytes of tensors.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping
from typing import Any

from handler.replies.extras import FIELDS, read_extras
from handler.requests import explanation as explanation_fields
from handler.requests.caption_request import HOW_TO_SEND, CaptionRequest, Form, RequestRefusal
from handler.requests.document import form_of, parse_document
from handler.requests.explanation import explained, read_explanation, take_fields, take_members
from handler.requests.picture_text import picture_file, refused_url
from handler.requests.values import read_json
from model.options import GenerationOptions

#: Fields that may hold the picture (or a JSON document that holds it).
PICTURE_FIELDS = ("body", "data", "image", "file")
#: Fields that TorchServe's own routes add; they are not options.
ROUTE_FIELDS = ("model_name",)

_FORM = "application/x-www-form-urlencoded"
_MULTIPART = "multipart/form-data"
#: Most bytes of the headers of a form's field, without its name: a file name (255 bytes, which are
#: 765 when percent-encoded), its content type and encoding.
_HEAD_OF_A_FIELD = 1024
#: Header that says when the client stops waiting, in seconds since 1970. It is a time of the clock,
#: because only the client knows how long its request has waited for the worker.
_DEADLINE = "X-Request-Deadline"
#: Header of the binary extension of KServe v2: the bytes of the JSON document, which come first.
_JSON_LENGTH = "Inference-Header-Content-Length"


@dataclasses.dataclass(frozen=True)
class RequestBody:
    """What a request holds, before its JSON document or its options are read.

    Attributes:
        content: The bytes of a picture file, or a parsed JSON document.
        is_document: Whether it is a document.
        options: The fields beside it: name -> text.
        binary: The bytes behind the document, of a KServe v2 request with binary tensors.
        form: The form of the request.
        explains: Whether its route asks for an explanation.
    """

    content: Any
    is_document: bool
    options: Mapping[str, Any]
    binary: bytes | bytearray | None = None
    form: Form = Form.PLAIN
    explains: bool = False


def read_body(fields: Mapping[str, Any], headers: Mapping[str, Any]) -> RequestBody:
    """Find the picture or the document of one request of a TorchServe batch.

    Args:
        fields: The request as TorchServe gives it: name -> bytes, text or parsed JSON.
        headers: HTTP headers, their names as the client wrote them, and for each field its
            content type.

    Raises:
        RequestRefusal: It holds no picture, two, or cannot be read.
    """
    if not fields and _is(headers, "describe", "true"):
        return RequestBody(None, False, {}, form=Form.DESCRIPTION)
    given = {name: value for name, value in fields.items() if name not in ROUTE_FIELDS}
    explains = _is(headers, "explain", "true")
    holders = [name for name in PICTURE_FIELDS if name in given]
    if not holders and "url" in given:
        raise refused_url('"url"')
    if not holders:
        raise _no_picture(headers)
    if len(holders) > 1:
        raise RequestRefusal(
            "bad_request",
            f"the request holds {len(holders)} pictures, in the fields {' and '.join(holders)}; "
            "send one",
        )
    _check_that_all_arrived(fields, headers)
    value = given.pop(holders[0])
    options = {name: _text(text) for name, text in given.items()}
    value, binary = _split(value, header(headers, _JSON_LENGTH))
    document = _document(value, _content_type(headers, holders[0]))
    if document is None and binary is None:
        data = _as_bytes(value)
        if header(headers, "Content-Type").lower().startswith(_FORM) and holders[0] != "body":
            data = data.replace(b" ", b"+")  # a "+" of base64 that was not escaped
        picture = picture_file(data, holders[0])
        return RequestBody(picture, False, options, explains=explains)
    if document is None:
        raise RequestRefusal(
            "bad_json",
            f"the first {len(value)} bytes of the body are no JSON, which the header "
            f"{_JSON_LENGTH} announces; send the body uncompressed",
        )
    return RequestBody(document, True, options, binary, form_of(document), explains)


def form_of_headers(headers: Mapping[str, Any]) -> Form:
    """The form of a request as far as its headers tell, for one whose body cannot be read."""
    return Form.KSERVE_V2 if header(headers, _JSON_LENGTH) else Form.PLAIN


def parse_request(
    body: RequestBody, defaults: GenerationOptions, max_pictures: int
) -> CaptionRequest:
    """Read one request.

    Args:
        body: What it holds.
        defaults: Options where the request gives none.
        max_pictures: Pictures that one request may hold.

    Raises:
        RequestRefusal: It holds no picture, too many, or has the wrong structure.
        UnknownOption: It gives an option that does not exist.
        BadOption: It gives an option a value it cannot take.
    """
    if body.form is Form.DESCRIPTION:
        return CaptionRequest([], [], Form.DESCRIPTION)
    names = (*FIELDS, *explanation_fields.FIELDS)
    given, fields = take_fields(body.options, names)
    content = body.content
    if body.is_document:
        inside, content = take_members(content, names)
        given.update(inside)
    explanation = read_explanation(given, body.explains)
    extras = read_extras(given)
    options = defaults.updated(fields)
    if body.is_document:
        request = parse_document(content, options, max_pictures, body.binary)
    else:
        request = CaptionRequest([content], [options])
    return dataclasses.replace(explained(request, explanation), extras=extras)


def deadline_of(headers: Mapping[str, Any]) -> float:
    """When the client of a request stops waiting, on the clock of `time.monotonic`.

    Returns:
        Infinity if the client named no time.

    Raises:
        RequestRefusal: What it named is not a time.
    """
    if not (text := header(headers, _DEADLINE)):
        return math.inf
    try:
        named = float(text)
    except ValueError:
        named = math.nan
    if math.isnan(named):
        raise RequestRefusal(
            "bad_request",
            f"the header {_DEADLINE} is {text[:40]!r}; it must be a time in seconds since 1970",
        )
    return time.monotonic() + named - time.time()


def is_rest(headers: Mapping[str, Any]) -> bool:
    """Whether a request came over HTTP: gRPC requests have content types but no headers."""
    return any(
        isinstance(value, str) and not name.startswith("ts_request_sequence")
        for name, value in headers.items()
    )


def header(headers: Mapping[str, Any], name: str) -> str:
    """An HTTP header of a request; empty if there is none, as over gRPC."""
    for given, value in headers.items():
        if given.lower() == name.lower() and isinstance(value, str):
            return value
    return ""


def _is(headers: Mapping[str, Any], name: str, value: str) -> bool:
    return str(headers.get(name)).lower() == value


def _check_that_all_arrived(fields: Mapping[str, Any], headers: Mapping[str, Any]) -> None:
    """Refuse a form of which TorchServe has dropped a field.

    Of several fields with the same name TorchServe keeps the last. The length of the whole form
    shows that another picture was there, unless it was smaller than the headers of a field may be.
    """
    kind, length = header(headers, "Content-Type"), header(headers, "Content-Length")
    if not kind.lower().startswith(_MULTIPART) or not length.isdecimal():
        return
    if any(not isinstance(value, str | bytes | bytearray) for value in fields.values()):
        return  # TorchServe has parsed a document, whose length is not known any more
    arrived = sum(len(_as_bytes(value)) for value in fields.values())
    names = sum(len(name.encode()) for name in fields)
    # The boundary stands before each field and at the end. It is part of the content type.
    heads = len(fields) * _HEAD_OF_A_FIELD + (len(fields) + 1) * len(kind)
    if int(length) > arrived + names + heads:
        raise RequestRefusal(
            "bad_request",
            f"the form has {length} bytes, but only {arrived} of them are in the fields that "
            f"arrived ({', '.join(fields)[:60]}): of several fields with the same name only the "
            "last arrives; send one picture, or several as JSON: "
            '{"images": ["<base64>", ...]}',
        )


def _split(value: Any, json_length: str) -> tuple[Any, bytes | bytearray | None]:
    """Divide a body of KServe v2 into its document and the bytes of binary tensors, if any."""
    if not json_length or not isinstance(value, bytes | bytearray):
        return value, None
    if not json_length.isdecimal() or int(json_length[:20]) > len(value):
        raise RequestRefusal(
            "bad_request",
            f"the header {_JSON_LENGTH} is {json_length[:40]!r}; it must be the number of bytes "
            f"of the JSON at the start of the body, which has {len(value)}",
        )
    return value[: int(json_length)], value[int(json_length) :]


def _content_type(headers: Mapping[str, Any], field: str) -> str:
    declared = headers.get(field)
    text = declared.get("content-type") if isinstance(declared, Mapping) else None
    return str(text or "").lower()


def _no_picture(headers: Mapping[str, Any]) -> RequestRefusal:
    if header(headers, "Content-Type").lower().startswith(_FORM):
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
    return read_json(data)


def _is_text(data: bytes | bytearray) -> bool:
    """Whether these bytes are UTF-8, as JSON is and the bytes of a picture are not."""
    try:
        return bool(data.decode())
    except UnicodeDecodeError:
        return False
