"""Sends a picture to TorchServe, or to the gateway in front of it, over HTTP."""

from __future__ import annotations

import dataclasses
import os
import ssl
from collections.abc import Mapping
from typing import Any

import httpx

from client.access import Access
from client.errors import CaptionError, ServerTimeout, ServerUnreachable
from client.feedback import Feedback, read_feedback
from client.results import CaptionResult, read_reply

#: Most seconds to wait for a connection; an answer may take longer.
CONNECT_SECONDS = 10.0


class _Rest:
    """What both transports share: where a request goes, its form, and what its reply means."""

    def __init__(self, url: str, model: str, timeout: float, access: Access) -> None:
        self.address = url.rstrip("/")
        self._path = f"{self.address}/predictions/{model}"
        self._timeout = timeout
        self._settings: dict[str, Any] = {
            "timeout": httpx.Timeout(timeout, connect=min(timeout, CONNECT_SECONDS)),
            # As many connections as the caller has requests, and all of them are kept.
            "limits": httpx.Limits(max_connections=None, max_keepalive_connections=None),
            # No proxy of the environment: the address is the server's own.
            "trust_env": False,
            "verify": tls_context(access),
            "headers": dict(access.headers),
        }

    def _form(self, picture: bytes, options: Mapping[str, str]) -> dict[str, Any]:
        """A form: TorchServe drops the parameters of a query on this route."""
        file = ("picture", picture, "application/octet-stream")
        return {"url": self._path, "files": {"data": file}, "data": dict(options)}

    def _feedback(self, fields: Mapping[str, str], picture: bytes | None) -> dict[str, Any]:
        """A form with files, even without a picture: the gateway reads no other."""
        parts: dict[str, Any] = {name: (None, text) for name, text in fields.items()}
        if picture is not None:
            parts["image"] = ("picture", picture, "application/octet-stream")
        return {"url": f"{self.address}/feedback", "files": parts}

    def _error(self, error: httpx.HTTPError | httpx.InvalidURL, size: int) -> CaptionError:
        match error:
            case httpx.ConnectTimeout() | httpx.ConnectError():
                reason = _reason(error) or f"no connection within {CONNECT_SECONDS:g} s"
                return ServerUnreachable(self.address, reason, unsent=True)
            case httpx.TimeoutException():
                return ServerTimeout(self.address, self._timeout)
            case httpx.WriteError() | httpx.ReadError() | httpx.RemoteProtocolError():
                return CaptionError(
                    0,
                    "connection_lost",
                    f"{self.address} closed the connection while {size} bytes were sent "
                    f"({type(error).__name__}); the picture may be over the server's size limit, "
                    "or the server was stopped",
                )
        # An address that cannot be used, above all.
        return ServerUnreachable(self.address, str(error), unsent=True)


class RestTransport(_Rest):
    """A pool of HTTP connections to one server; safe to use from several threads.

    Args:
        url: Where the server listens, such as `http://127.0.0.1:8080`.
        model: Name of the model there.
        timeout: Seconds to wait for an answer.
        access: Headers to send and certificates to trust.
    """

    def __init__(self, url: str, model: str, timeout: float, access: Access) -> None:
        """Open nothing yet: connections are made by the first request."""
        super().__init__(url, model, timeout, access)
        self._http = httpx.Client(**self._settings)

    def send(self, picture: bytes, options: Mapping[str, str]) -> CaptionResult:
        """Caption one picture.

        Raises:
            CaptionError: The server refused, or did not answer.
        """
        return _read(self._post(self._form(picture, options), len(picture)))

    def give_feedback(self, fields: Mapping[str, str], picture: bytes | None) -> Feedback:
        """Say something of a caption.

        Raises:
            CaptionError: The gateway refused, or did not answer.
        """
        return _read_feedback(self._post(self._feedback(fields, picture), len(picture or b"")))

    def _post(self, form: dict[str, Any], size: int) -> httpx.Response:
        try:
            return self._http.post(**form)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._error(error, size) from None

    def close(self) -> None:
        """Close the connections."""
        self._http.close()


class AsyncRestTransport(_Rest):
    """The same for asyncio; its arguments are those of `RestTransport`."""

    def __init__(self, url: str, model: str, timeout: float, access: Access) -> None:
        """Open nothing yet: connections are made by the first request."""
        super().__init__(url, model, timeout, access)
        self._http = httpx.AsyncClient(**self._settings)

    async def send(self, picture: bytes, options: Mapping[str, str]) -> CaptionResult:
        """Caption one picture.

        Raises:
            CaptionError: The server refused, or did not answer.
        """
        return _read(await self._post(self._form(picture, options), len(picture)))

    async def give_feedback(self, fields: Mapping[str, str], picture: bytes | None) -> Feedback:
        """Say something of a caption; as `RestTransport.give_feedback`."""
        form = self._feedback(fields, picture)
        return _read_feedback(await self._post(form, len(picture or b"")))

    async def _post(self, form: dict[str, Any], size: int) -> httpx.Response:
        try:
            return await self._http.post(**form)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._error(error, size) from None

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()


def _read(reply: httpx.Response) -> CaptionResult:
    headers = reply.headers
    result = read_reply(
        reply.status_code, reply.content, headers.get("Retry-After"), headers.get("Date")
    )
    return dataclasses.replace(result, request_id=headers.get("X-Request-Id"))


def _read_feedback(reply: httpx.Response) -> Feedback:
    headers = reply.headers
    return read_feedback(
        reply.status_code, reply.content, headers.get("Retry-After"), headers.get("Date")
    )


def _reason(error: BaseException) -> str:
    """Why no connection was made. In asyncio the system's reason lies behind another error."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, BaseExceptionGroup):  # one for each address of a host
            cause = cause.exceptions[0]
        if isinstance(cause, ConnectionError) and cause.errno is not None:
            return f"[Errno {cause.errno}] {os.strerror(cause.errno)}"
        cause = cause.__cause__ or cause.__context__
    return str(error)


def tls_context(access: Access) -> ssl.SSLContext:
    """What httpx trusts. It reads SSL_CERT_FILE and SSL_CERT_DIR, unlike `trust_env=False`."""
    if access.ca_file is None:
        return httpx.create_ssl_context()
    return ssl.create_default_context(cafile=access.ca_file)
