"""A request of HTTP as the handler's code reads it: the fields and headers of TorchServe."""

from __future__ import annotations

import dataclasses
import enum
import json
import re
import uuid
from collections.abc import AsyncGenerator
from typing import Any

from starlette.datastructures import UploadFile
from starlette.formparsers import FormParser, MultiPartException, MultiPartParser
from starlette.requests import Request

from handler.batch_captioner import ReceivedRequest
from handler.requests.caption_request import RequestRefusal

#: Fields of a form that are read at most; a caption has about twenty options.
MAX_FIELDS = 1000

_MULTIPART = "multipart/form-data"
_URL_ENCODED = "application/x-www-form-urlencoded"
#: Routes by their paths, and whether a query's parameters are fields of the request.
_PATHS: tuple[tuple[str, bool], ...] = (
    (r"/predictions/(?P<name>[^/]+)(?:/[^/]+)?", False),
    (r"/explanations/(?P<name>[^/]+)(?:/[^/]+)?", False),
    (r"/models/(?P<name>[^/]+)/invoke", True),
    (r"/v1/models/(?P<name>[^/:]+):predict", True),
    (r"/v2/models/(?P<name>[^/]+)/infer", True),
)


class Kind(enum.Enum):
    """What a path asks for."""

    CAPTION = enum.auto()
    STATE = enum.auto()
    METRICS = enum.auto()
    PING = enum.auto()


@dataclasses.dataclass(frozen=True)
class Route:
    """What a request asks for.

    Attributes:
        kind: Of answer.
        explains: Whether an explanation is asked for.
        takes_query: Whether a query's parameters are fields of the request.
    """

    kind: Kind
    explains: bool = False
    takes_query: bool = False


class NotServed(Exception):
    """A request that does not reach the handler's code; the message is for the user.

    Attributes:
        status: Of HTTP.
        code: For programs.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        """Build the error."""
        super().__init__(message)
        self.status, self.code = status, code


def error_body(status: int, code: str, message: str) -> str:
    """The error object of the contract, as JSON text."""
    return json.dumps({"error": {"status": status, "code": code, "message": message}})


def route_of(method: str, path: str, name: str) -> Route:
    """What a request asks for.

    Args:
        method: Of HTTP.
        path: Without a query.
        name: Of the model that is served.

    Raises:
        NotServed: There is no such path or model, or not with this method.
    """
    simple = {"/ping": Kind.PING, "/metrics": Kind.METRICS}.get(path)
    if simple is not None:
        _check_method(method, path, ("GET", "HEAD"))
        return Route(simple)
    for pattern, takes_query in _PATHS:
        if found := re.fullmatch(pattern, path):
            _check_name(found["name"], name)
            _check_method(method, path, ("GET", "POST", "PUT"))
            return Route(Kind.CAPTION, path.startswith("/explanations/"), takes_query)
    if found := re.fullmatch(r"/models/([^/]+)", path):
        _check_name(found[1], name)
        _check_method(method, path, ("GET", "HEAD"))
        return Route(Kind.STATE)
    raise NotServed(
        404, "not_found", f"{path[:100]} is not served; captions: POST /predictions/{name}"
    )


def _check_name(given: str, name: str) -> None:
    if given != name:
        message = f"model {given[:100]!r} is not served; ask for {name!r}"
        raise NotServed(404, "model_not_found", message)


def _check_method(method: str, path: str, allowed: tuple[str, ...]) -> None:
    if method not in allowed:
        message = f"{method} is not answered at {path[:100]}; use {' or '.join(allowed)}"
        raise NotServed(405, "method_not_allowed", message)


async def read_request(request: Request, route: Route, max_bytes: int) -> ReceivedRequest:
    """Read the body of a request for captions.

    Args:
        request: Of HTTP.
        route: What it asks for.
        max_bytes: Of the body.

    Raises:
        NotServed: The body is too large.
        RequestRefusal: It is a form that cannot be read.
        ClientDisconnect: The client left.
    """
    body = await _body(request, max_bytes)
    fields: dict[str, Any] = dict(request.query_params) if route.takes_query else {}
    content_type = request.headers.get("content-type", "")
    headers: dict[str, Any] = {}
    if content_type.lower().startswith((_MULTIPART, _URL_ENCODED)):
        for name, value, kind in await _form(request, content_type, body):
            fields[name] = value
            headers[name] = {"content-type": kind}
    else:
        fields["body"] = body
        headers["body"] = {"content-type": content_type}
    headers |= request.headers
    if route.explains:
        headers["explain"] = "True"
    return ReceivedRequest(fields, headers, uuid.uuid4().hex)


async def _body(request: Request, max_bytes: int) -> bytes:
    """The body; refused as soon as it is known to be too large."""
    length = request.headers.get("content-length", "")
    size, parts = int(length) if length.isdecimal() else 0, bytearray()
    async for part in request.stream():
        size = max(size, len(parts) + len(part))
        if size <= max_bytes:
            parts += part
        else:
            break
    if size > max_bytes:
        raise NotServed(
            413,
            "request_too_large",
            f"the request has {size} bytes or more; the limit is {max_bytes}; send a smaller "
            "version of the picture, or fewer pictures at a time",
        )
    return bytes(parts)


async def _form(
    request: Request, content_type: str, body: bytes
) -> list[tuple[str, bytes, str | None]]:
    """The fields of a form: name, value and content type.

    Raises:
        RequestRefusal: It is damaged.
    """

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body
        yield b""

    if not content_type.lower().startswith(_MULTIPART):
        form = await FormParser(request.headers, stream()).parse()
        # Starlette reads text as Latin-1, in which each byte is one character.
        return [
            (name, value.encode("latin-1", "replace"), None)
            for name, value in form.multi_items()
            if isinstance(value, str)
        ]
    try:
        parser = MultiPartParser(
            request.headers,
            stream(),
            max_files=MAX_FIELDS,
            max_fields=MAX_FIELDS,
            max_part_size=len(body) + 1,
        )
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError, LookupError) as error:
        reason = str(error) or type(error).__name__
        raise RequestRefusal(
            "bad_request", f"the form cannot be read: {' '.join(reason.split())[:200]}"
        ) from None
    found: list[tuple[str, bytes, str | None]] = []
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            found.append((name, await value.read(), value.content_type))
        else:
            found.append((name, value.encode(), None))
    await form.close()
    return found
