"""One client for REST and gRPC; the scheme of the address chooses between them."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol

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
#: Seconds before a request is sent again after a 503; doubled each time.
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
        address: `http://HOST:PORT` (or https) for REST, `grpc://HOST:PORT` for gRPC.
        model: Name of the model on the server.
        timeout: Seconds to wait for each answer.
        retries: How often a request is sent again, after a pause, when the server is overloaded
            (503). Other errors are raised at once.
    """

    def __init__(
        self,
        address: str = REST_ADDRESS,
        *,
        model: str = "clipcap",
        timeout: float = TIMEOUT,
        retries: int = 3,
    ) -> None:
        """Choose the transport; nothing is sent yet.

        Raises:
            ValueError: The address has neither scheme.
            RuntimeError: The gRPC stubs are missing, or do not fit the installed packages.
        """
        scheme, _, rest = address.partition("://")
        self._transport: Transport
        if scheme == "grpc" and rest:
            from client.rpc import GrpcTransport  # each transport loads its own library only

            self._transport = GrpcTransport(rest, model, timeout)
        elif scheme in ("http", "https") and rest:
            from client.rest import RestTransport

            self._transport = RestTransport(address, model, timeout)
        else:
            raise ValueError(
                f"address is {address!r}; it must be http://HOST:PORT or grpc://HOST:PORT"
            )
        self._retries = retries

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
                if error.status != 503:
                    raise
                time.sleep(FIRST_PAUSE * 2**attempt * random.uniform(0.5, 1.5))
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
