"""One client for REST and gRPC; the scheme of the address chooses between them."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol

from client.access import Access
from client.errors import CaptionError
from client.results import CaptionResult

REST_ADDRESS = "http://127.0.0.1:8080"
GRPC_ADDRESS = "grpc://127.0.0.1:7070"
#: Form field, or gRPC input key, of the picture itself.
PICTURE_FIELD = "data"
#: Seconds to wait for an answer. The server answers 504, with a reason, 60 s after it began with a
#: batch. This limit leaves time for one such batch before a request's own. A server with a full
#: queue of slow requests may take longer still.
TIMEOUT = 130.0
#: Seconds before a request is sent again, where the server names none; doubled each time.
FIRST_PAUSE = 0.25


class Transport(Protocol):
    """A way to send one picture and get its captions."""

    def send(self, picture: bytes, options: Mapping[str, str]) -> CaptionResult:
        """Caption one picture; raises `CaptionError`."""

    def close(self) -> None:
        """Close connections."""


class CaptionClient:
    """Captions pictures with a running captioner; safe to use from several threads.

    Args:
        address: `http://HOST:PORT` (or https) for REST, `grpc://HOST:PORT` (or grpcs) for gRPC.
        model: Name of the model on the server.
        timeout: Seconds to wait for each answer.
        retries: How often a request is sent again, after a pause, when the server did not begin
            with it: it is overloaded, or nothing listens at its address. The pause is as long as
            the server says, unless that is longer than `timeout`. Other errors are raised at once:
            the request may be what made the server fail.
        headers: Sent with every request: name -> value. Over gRPC they are its metadata.
        token: Sent as `Authorization: Bearer <token>`.
        ca_file: Certificates (PEM) of the authorities to trust, for https and grpcs. By default
            those of SSL_CERT_FILE, or else the usual ones.
    """

    def __init__(
        self,
        address: str = REST_ADDRESS,
        *,
        model: str = "clipcap",
        timeout: float = TIMEOUT,
        retries: int = 3,
        headers: Mapping[str, str] | None = None,
        token: str | None = None,
        ca_file: str | os.PathLike[str] | None = None,
    ) -> None:
        """Choose the transport; nothing is sent yet.

        Raises:
            ValueError: The address has none of the schemes, a header or the token cannot be sent,
                or the file holds no certificate.
            OSError: The file of certificates cannot be read.
            RuntimeError: The gRPC stubs are missing, or do not fit the installed packages.
        """
        scheme, _, rest = address.partition("://")
        access = Access.of(headers, token, None if ca_file is None else Path(ca_file))
        self._transport: Transport
        if scheme in ("grpc", "grpcs") and rest:
            from client.rpc import GrpcTransport  # each transport loads its own library only

            self._transport = GrpcTransport(rest, model, timeout, access, tls=scheme == "grpcs")
        elif scheme in ("http", "https") and rest:
            from client.rest import RestTransport

            self._transport = RestTransport(address, model, timeout, access)
        else:
            raise ValueError(
                f"address is {address!r}; it must be http://HOST:PORT or grpc://HOST:PORT "
                "(with TLS: https, grpcs)"
            )
        self._retries, self._timeout = retries, timeout

    def caption(
        self, picture: bytes | str | os.PathLike[str], /, **options: float | str
    ) -> CaptionResult:
        """Caption one picture.

        Args:
            picture: The bytes of a picture file, or its path.
            options: Options of the server, such as `num_beams=5`; `python -m client --options`
                lists them.

        Raises:
            CaptionError: The server refused the picture or an option, or could not answer.
            OSError: The file cannot be read.
            ValueError: An option is called `data`.
        """
        texts = option_texts(options)
        data = picture if isinstance(picture, bytes) else Path(picture).read_bytes()
        for attempt in range(self._retries):
            try:
                return self._transport.send(data, texts)
            except CaptionError as error:
                pause = FIRST_PAUSE * 2**attempt * random.uniform(0.5, 1.5)
                wanted = error.retry_after_seconds or 0.0
                if not error.may_be_sent_again or wanted > self._timeout:
                    raise
                time.sleep(max(pause, wanted))
        return self._transport.send(data, texts)

    def close(self) -> None:
        """Close connections."""
        self._transport.close()

    def __enter__(self) -> CaptionClient:
        """Use as a context manager: closes at the end."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close connections."""
        self.close()


def option_texts(options: Mapping[str, float | str]) -> dict[str, str]:
    """Options as the text that is sent.

    Raises:
        ValueError: An option is called `data`: that is the field of the picture.
    """
    if PICTURE_FIELD in options:
        raise ValueError(f"{PICTURE_FIELD} is the field of the picture itself, not an option")
    return {name: str(value) for name, value in options.items()}
