"""Errors of the gateway: one object on every path, in the place where its clients read it."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from client import CaptionError

logger = logging.getLogger(__name__)

#: HTTP status -> code of an error that the web framework raises itself.
CODES = {401: "key_needed", 404: "not_found", 405: "method_not_allowed", 413: "request_too_large"}


class GatewayError(HTTPException):
    """A request that gets no caption.

    It is an `HTTPException` so that FastAPI lets it pass when it is raised while a body is read.

    Attributes:
        code: For programs, such as `overloaded`.
        retry_after: Seconds after which the same request may be sent again; None if that is of no
            use.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Build an error from its status, its code and a message for the user."""
        given = dict(headers or {})
        self.code = code
        self.retry_after = None if retry_after is None else max(1, math.ceil(retry_after))
        if self.retry_after is not None:
            given["Retry-After"] = str(self.retry_after)
        # A lone surrogate, which JSON may hold, cannot be sent as UTF-8.
        text = message.encode(errors="backslashreplace").decode()
        super().__init__(status, text, given)

    @classmethod
    def of(cls, error: CaptionError, retry_after: float | None = None) -> GatewayError:
        """The error to send for one that TorchServe or the handler reported.

        Args:
            error: With status 0 if TorchServe did not answer.
            retry_after: Seconds that the server named.
        """
        if error.status == 0:  # nothing listens, or the connection broke
            message = "the captioner does not answer; it may be starting again; try later"
            return cls(503, error.code, message, retry_after or 2)
        if error.status == 503:
            return cls(503, error.code, error.message, retry_after or 1)
        status = error.status if 400 <= error.status < 600 else 500
        return cls(status, error.code, error.message)

    def to_dict(self) -> dict[str, Any]:
        """The error object."""
        found = {"status": self.status_code, "code": self.code, "message": self.detail}
        if self.retry_after is not None:
            found["retry_after_seconds"] = self.retry_after
        return found


class NotReady(GatewayError):
    """The captioner cannot be asked now."""

    def __init__(self) -> None:
        """Build the error; the log of TorchServe has the cause."""
        message = "the captioner is not ready; it may be starting; try again later"
        super().__init__(503, "not_ready", message, 2)


class UrlRefused(GatewayError):
    """The URL of a picture that the gateway does not ask."""

    def __init__(self, why: str) -> None:
        """Build the error; the reason must not tell what stands in the gateway's network."""
        super().__init__(
            422,
            "url_refused",
            f"the URL, or one that it redirects to, is not asked for a picture: {why}; give "
            "another URL, or send the bytes",
        )


def error_response(
    path: str, error: GatewayError, more: Mapping[str, Any] | None = None
) -> Response:
    """The reply for an error.

    Args:
        path: Of the request; it decides where the object stands.
        error: What to report.
        more: Fields beside the error.
    """
    found = error.to_dict()
    body = {"error": error.detail, "detail": found} if _as_text(path) else {"error": found}
    return JSONResponse({**body, **(more or {})}, error.status_code, dict(error.headers or {}))


def add_handlers(app: FastAPI) -> None:
    """Make every error of the application an error object."""
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(ClientDisconnect, _disconnected)
    app.add_exception_handler(Exception, _fault)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if not isinstance(error, GatewayError):
        status, message = error.status_code, error.detail
        if status in (404, 405):
            message = f"{request.method} {request.url.path[:200]} is not served; see /openapi.json"
        code = CODES.get(status, "bad_request")
        error = GatewayError(status, code, message, headers=error.headers)
    return error_response(request.url.path, error)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]  # its `input` may be a picture, so it is not shown
    place = ".".join(str(part) for part in first["loc"])[:200]
    if first["type"] == "json_invalid":
        return error_response(
            request.url.path, GatewayError(400, "bad_json", f"the body is not valid JSON ({place})")
        )
    message = f"{place}: {first['msg']}"
    return error_response(request.url.path, GatewayError(422, "bad_request", message))


async def _disconnected(request: Request, error: Exception) -> Response:
    # Nobody receives this reply, but without it the log would get a traceback.
    message = "the connection ended before the request was whole"
    return error_response(request.url.path, GatewayError(400, "disconnected", message))


async def _fault(request: Request, error: Exception) -> Response:
    # The server logs the traceback. The user gets no detail of it.
    message = "this request met a fault of the gateway; its log has the details"
    return error_response(request.url.path, GatewayError(500, "internal", message))


def _as_text(path: str) -> bool:
    """Whether clients of this path (KServe v2, Ollama) read `error` as text."""
    return path == "/v2" or path.startswith(("/v2/", "/api/"))
