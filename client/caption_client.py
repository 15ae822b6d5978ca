"""One client for both doors of the server: the scheme of the address chooses."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol

from client.errors import CaptionError
from client.rest import RestTransport
from client.results import CaptionResult

REST_ADDRESS = "http://127.0.0.1:8080"
GRPC_ADDRESS = "grpc://127.0.0.1:7070"
#: Seconds to wait for an answer. The server's own 504, which says more, comes 60 s after it began
#: with a request, or twice that if one slow batch was before it.
TIMEOUT = 130.0
#: Seconds before the first retry of an overloaded server; doubled each time.
FIRST_PAUSE = 0.25


class Transport(Protocol):
    """A way to send one picture and get its captions."""

    def send(self, picture: bytes, options: Mapping[str, str]) -> CaptionResult:
        """Caption one picture; raises `CaptionError`."""

    def close(self) -> None:
        """Let go of connections."""


class CaptionClient:
    """Captions pictures with a running captioner; safe to use from several threads.

    Args:
        address: `http://HOST:PORT` (or https) for REST, `grpc://HOST:PORT` for gRPC.
        model: Name of the model on the server.
        timeout: Seconds to wait for each answer.
        retries: How often to ask an overloaded server (503) again; nothing else is retried.
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
        """
        scheme, _, rest = address.partition("://")
        self._transport: Transport
        if scheme == "grpc" and rest:
            from client.rpc import GrpcTransport  # REST needs no gRPC

            self._transport = GrpcTransport(rest, model, timeout)
        elif scheme in ("http", "https") and rest:
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
            options: The server's options: `num_beams=5`, `num_captions=3`, `max_tokens=20`, ...
                `data` is not one of them: it is the name of the field that holds the picture.

        Raises:
            CaptionError: The server refused the picture or an option, or could not answer.
            OSError: The file cannot be read.
            ValueError: An option is called `data`.
        """
        if "data" in options:
            raise ValueError("data is the field of the picture itself; it is no option")
        data = picture if isinstance(picture, bytes) else Path(picture).read_bytes()
        texts = {name: str(value) for name, value in options.items()}
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
