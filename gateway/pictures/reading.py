"""Pictures as base64 text or URLs, and where a request of our own interface may hold them."""

from __future__ import annotations

import base64
import binascii
import collections
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import Request
from starlette.datastructures import UploadFile

from gateway.errors import GatewayError
from gateway.pictures.hugging_face import captioner_options
from gateway.pictures.options import Description, option_texts

#: The bytes of a picture file, or its URL; of several pictures also why one cannot be read.
Picture = bytes | str | GatewayError

#: How a picture may be sent; part of the message to a client that sent none.
HOW_TO_SEND = (
    'send it with curl -T photo.jpg or -F data=@photo.jpg, or as JSON {"image": "<base64>"}'
)
#: Most fields of a form that are not files.
MAX_FIELDS = 100
#: Most bytes of one of them, which may be a picture as base64 text.
MAX_TEXT_BYTES = 28 << 20


#: Fields of a form that may hold a picture as text.
PICTURE_FIELDS = ("data", "image", "file", "body")
_FORM = "application/x-www-form-urlencoded"
#: How such a form begins if it holds a picture, which no picture file does.
_FIELD = re.compile(rb"(?:[\w.-]{1,40}=[^&]{0,200}&){0,20}(?:data|image|file|body|url)=")
#: Longest body that may be a URL.
_URL_BYTES = 8192
#: Members of other servers' clients that say nothing about captions: the signature of a model for
#: TensorFlow Serving, and what a client notes for itself.
UNREAD = ("signature_name", "metadata")


def is_url(value: Any) -> bool:
    """Whether a value is text that begins as a URL of http or https."""
    return isinstance(value, str) and value[:8].lower().startswith(("http://", "https://"))


def file_or_url(data: bytes) -> Picture:
    """The picture that a body or a field of a form is: its bytes, or its URL if it is one.

    Base64 text is left as it is: the captioner decodes it.
    """
    if len(data) > _URL_BYTES or data[:5].lower() not in (b"http:", b"https"):
        return data
    text = data.decode(errors="replace").strip()
    return text if is_url(text) else data


def without_unread(members: Mapping[str, Any]) -> dict[str, Any]:
    """A document without the members that nothing is done with."""
    return {name: value for name, value in members.items() if name not in UNREAD}


def read_picture(value: Any, where: str) -> Picture:
    """A picture from base64 text, a `data:` URL, or a URL of http or https, which is kept.

    Args:
        value: The text.
        where: The field, for messages.

    Raises:
        GatewayError: The value is not text, or not base64.
    """
    return str(value) if is_url(value) else decode_base64(value, where)


def or_error(read: Callable[[Any, str], Picture], value: Any, where: str) -> Picture:
    """One of several pictures, or why it cannot be read: the others are captioned."""
    try:
        return read(value, where)
    except GatewayError as error:
        return error


def decode_base64(value: Any, where: str) -> bytes:
    """The bytes of a picture from base64 text or a `data:` URL.

    Args:
        value: Text in the standard or the URL-safe alphabet, with or without line breaks and
            padding.
        where: The field, for messages.

    Raises:
        GatewayError: The value is not text, a URL of another kind, or not base64.
    """
    if not isinstance(value, str):
        raise GatewayError(400, "bad_base64", f"{where} must be a picture file as base64 text")
    if is_url(value):
        raise GatewayError(
            400,
            "no_urls",
            f"{where} is a URL; on this route pictures by URL are not fetched; send the bytes",
        )
    text = value.lstrip() if value[:1].isspace() else value
    if text[:5].lower() == "data:":
        head, comma, rest = text[:200].partition(",")
        if not comma or not head.lower().rstrip().endswith(";base64"):
            raise GatewayError(
                400, "bad_base64", f"{where} must begin with data:image/...;base64, if it is a URL"
            )
        text = rest + text[200:]
    text = "".join(text.split()).translate({ord("-"): "+", ord("_"): "/"})
    if not text.endswith("="):
        text += "=" * (-len(text) % 4)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise GatewayError(
            400, "bad_base64", f"{where} is not valid base64 ({error}); encode the picture file"
        ) from None


def parse_json(body: bytes) -> dict[str, Any]:
    """A JSON object.

    Raises:
        GatewayError: The body is not one, or an object in it has the same name twice.
    """
    try:
        found = json.loads(body, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise GatewayError(
            400, "bad_json", f"the body is not valid JSON ({str(error)[:100]})"
        ) from None
    if not isinstance(found, dict):
        raise GatewayError(400, "bad_json", "the JSON body must be an object")
    return found


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; Python alone would keep the last of two pictures with the same name."""
    found = dict(members)
    if len(found) < len(members):
        counts = collections.Counter(name for name, _ in members)
        name = next(name for name in counts if counts[name] > 1)
        raise GatewayError(
            400,
            "bad_request",
            f"an object in the JSON body has {name[:40]!r} twice; send each name once",
        )
    return found


async def read_request(
    request: Request, description: Description
) -> tuple[list[Picture], dict[str, str]]:
    """Read a request that holds bytes, a form or JSON, with options in its query too.

    The type of the body decides. Bytes are accepted under every type but that of a form with
    files, because `curl --data-binary` declares application/x-www-form-urlencoded by default.

    Args:
        request: The request.
        description: The captioner's own; names the options.

    Returns:
        Each picture, and the options of all of them.

    Raises:
        GatewayError: There is no picture, the body cannot be read, or an option is unknown.
    """
    query = request.query_params.multi_items()
    if is_form(request):
        pictures, fields = await read_form(request)
        options = option_texts(description, [*query, *fields])
    else:
        body = await request.body()
        kind = request.headers.get("content-type", "").lower()
        # `curl -d '{...}'` declares a form too.
        if "json" in kind or body[:64].lstrip().startswith(b"{"):
            pictures, members = read_document(parse_json(body))
            options = option_texts(description, [*query, *members.items()])
        elif holds_fields(request, body):
            pictures, fields = await read_form(request)
            options = option_texts(description, [*query, *fields])
        else:
            pictures = [file_or_url(body)] if body else []
            options = option_texts(description, query)
    if not pictures:
        raise GatewayError(400, "no_image", f"the request holds no picture; {HOW_TO_SEND}")
    return pictures, options


def is_form(request: Request) -> bool:
    """Whether a request declares a form with files."""
    return request.headers.get("content-type", "").lower().startswith("multipart/form-data")


def holds_fields(request: Request, body: bytes) -> bool:
    """Whether the body is a form without files, and not a picture that curl declares as one."""
    kind = request.headers.get("content-type", "").lower()
    return kind.startswith(_FORM) and _FIELD.match(body[:8192]) is not None


async def read_form(request: Request) -> tuple[list[Picture], list[tuple[str, Any]]]:
    """The picture in every file or text of a form, and the names and texts of its other fields.

    Raises:
        HTTPException: It cannot be read.
    """
    pictures: list[Picture] = []
    fields: list[tuple[str, Any]] = []
    has_files = is_form(request)
    async with request.form(max_fields=MAX_FIELDS, max_part_size=MAX_TEXT_BYTES) as form:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                pictures.append(await value.read())
            elif name in PICTURE_FIELDS:
                # In a form without files a "+" that was not escaped has become a space.
                text = value if has_files else value.replace(" ", "+")
                pictures.append(file_or_url(text.encode()))
            elif name == "url":
                pictures.append(value)
            else:
                fields.append((name, value))
    return pictures, fields


def read_document(document: dict[str, Any]) -> tuple[list[Picture], dict[str, Any]]:
    """The pictures and options of a document with one of the members that hold pictures.

    Args:
        document: Has options beside the pictures, or in `options`.

    Raises:
        GatewayError: It does not have that form.
    """
    members = without_unread(document)
    known = [*_ONE, *_SEVERAL]
    names = [name for name in known if name in members]
    if len(names) != 1:
        raise GatewayError(
            400, "no_image", f"the JSON body must have one of {', '.join(known)}; {HOW_TO_SEND}"
        )
    [name] = names
    value = members.pop(name)
    if name == "inputs":
        return _inputs(value), captioner_options(members)
    grouped: dict[str, Any] = {}
    for group in ("options", "parameters"):
        held = members.pop(group, None) or {}
        if not isinstance(held, Mapping):
            raise GatewayError(400, "bad_json", f'"{group}" must be an object')
        grouped.update(held)
    pictures: list[Picture]
    if name in _ONE:
        pictures = [_ONE[name](value, name)]
    else:
        if not isinstance(value, list):
            raise GatewayError(400, "bad_json", f'"{name}" must be a list of texts')
        pictures = [or_error(_SEVERAL[name], each, f"{name}[{i}]") for i, each in enumerate(value)]
    return pictures, {**members, **grouped}


def is_hugging_face(document: Mapping[str, Any]) -> bool:
    """Whether `inputs` is Hugging Face's, text or a list of texts, and not KServe's tensors."""
    inputs = document.get("inputs")
    if isinstance(inputs, list):
        return bool(inputs) and all(isinstance(each, str) for each in inputs)
    return isinstance(inputs, str)


def _inputs(value: Any) -> list[Picture]:
    """The pictures of Hugging Face's `inputs`."""
    if isinstance(value, list):
        return [or_error(read_picture, each, f"inputs[{i}]") for i, each in enumerate(value)]
    return [read_picture(value, "inputs")]


def encoded(value: Any) -> Any:
    """The text of a picture, which TensorFlow Serving's clients put into an object."""
    if isinstance(value, Mapping) and len(value) == 1:
        return next((value[name] for name in ("b64", "base64") if name in value), value)
    return value


def _read_one(value: Any, where: str) -> Picture:
    return read_picture(encoded(value), where)


def _read_url(value: Any, where: str) -> Picture:
    if not isinstance(value, str):
        raise GatewayError(400, "bad_json", f"{where} must be the URL of a picture, as text")
    return value


#: Members that may hold one picture as base64 text or as an object with it.
PICTURE_NAMES = ("image", "data", "image_bytes", "b64", "base64")
#: Members of a JSON body that hold one picture, or a list of them -> how each is read.
_ONE = {**dict.fromkeys(PICTURE_NAMES, _read_one), "url": _read_url, "inputs": read_picture}
_SEVERAL = {"images": read_picture, "urls": _read_url}
