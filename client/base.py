"""What both clients share: where they send to, which options are sound, and when to ask again.

`client/caption_client.py` and `client/async_client.py` add how to wait: in threads, or in asyncio.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from client.access import Access
from client.errors import CaptionError
from client.options import Option, check_options, option_texts, read_options
from client.retries import Retries

REST_ADDRESS = "http://127.0.0.1:8080"
GRPC_ADDRESS = "grpc://127.0.0.1:7070"
MANAGEMENT_ADDRESS = "http://127.0.0.1:8081"
#: Seconds to wait for an answer. The server answers 504, with a reason, 60 s after it began with a
#: batch. This limit leaves time for one such batch before a request's own. A server with a full
#: queue of slow requests may take longer still.
TIMEOUT = 130.0
#: Pictures that `caption_many` sends at a time.
JOBS = 8

#: The bytes of a picture file, or its path.
Picture = bytes | str | os.PathLike[str]

Transport = TypeVar("Transport")


class BaseClient(ABC, Generic[Transport]):
    """Address, access, options and retries of a client.

    Args:
        address: `http://HOST:PORT` (or https) for REST, `grpc://HOST:PORT` (or grpcs) for gRPC.
        model: Name of the model on the server.
        timeout: Seconds to wait for each answer.
        retries: How often a request is sent again, after a pause, when the server did not begin
            with it: it is overloaded, or nothing listens at its address. The pause is as long as
            the server says, unless that is longer than `timeout`. A request whose connection broke,
            or that got a 504, is sent again once. Other errors are raised at once.
        patience: Seconds for which a request is sent again beyond `retries`, while a server that
            has answered this client before is overloaded or away, as while it is started again.
        headers: Sent with every request: name -> value. Over gRPC they are its metadata.
        token: Sent as `Authorization: Bearer <token>`.
        ca_file: Certificates (PEM) of the authorities to trust, for https and grpcs. By default
            those of SSL_CERT_FILE, or else the usual ones.
        management: Address of TorchServe's management, which describes its options. By default
            that of this machine for TorchServe's own two addresses there. A gateway needs none.
    """

    def __init__(
        self,
        address: str = REST_ADDRESS,
        *,
        model: str = "clipcap",
        timeout: float = TIMEOUT,
        retries: int = 3,
        patience: float = 0.0,
        headers: Mapping[str, str] | None = None,
        token: str | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        management: str | None = None,
    ) -> None:
        """Choose the transport; nothing is sent yet.

        Raises:
            ValueError: The address has none of the schemes, a header or the token cannot be sent,
                or the file holds no certificate.
            OSError: The file of certificates cannot be read.
            RuntimeError: The gRPC stubs are missing, or do not fit the installed packages.
        """
        scheme, _, rest = address.partition("://")
        if scheme not in ("grpc", "grpcs", "http", "https") or not rest:
            raise ValueError(
                f"address is {address!r}; it must be http://HOST:PORT or grpc://HOST:PORT "
                "(with TLS: https, grpcs)"
            )
        self.address, self.model, self.timeout = address, model, timeout
        self._access = Access.of(headers, token, None if ca_file is None else Path(ca_file))
        self._management = management or management_of(address)
        self._retries = Retries(retries, patience, timeout)
        self._description: dict[str, Any] | None = None
        self._transport = self._over_http() if scheme.startswith("http") else self._over_grpc(rest)

    @abstractmethod
    def _over_http(self) -> Transport:
        """A transport over REST. Each of the two loads only the library that it needs."""

    @abstractmethod
    def _over_grpc(self, target: str) -> Transport:
        """A transport over gRPC to `HOST:PORT`."""

    def _describe(self) -> dict[str, Any]:
        """The server's description of its model, which is read once.

        Raises:
            CaptionError: The server has none, or does not answer.
        """
        if self._description is None:
            from client.description import read_description

            self._description = read_description(
                self.address, self._management, self.model, self.timeout, self._access
            )
        return self._description

    def _options(self) -> dict[str, Option]:
        return read_options(self._describe())

    def _try_to_describe(self) -> None:
        """Read the description, if the server has one. Without it options are not checked here."""
        try:
            self._describe()
        except CaptionError:
            return

    def _texts(self, options: Mapping[str, float | str]) -> dict[str, str]:
        """Options as they are sent, checked if the server's description has been read.

        Raises:
            CaptionError: The server would refuse an option.
            ValueError: An option cannot be sent.
        """
        texts = option_texts(options)
        if self._description is not None:
            check_options(self._description, texts)
        return texts


def management_of(address: str) -> str | None:
    """The management of TorchServe's own addresses on this machine; None for any other address."""
    return MANAGEMENT_ADDRESS if address in (REST_ADDRESS, GRPC_ADDRESS) else None


def read_picture(picture: Picture) -> bytes:
    """The bytes of a picture.

    Raises:
        OSError: The file cannot be read.
        ValueError: The path has a zero byte.
    """
    return picture if isinstance(picture, bytes) else Path(picture).read_bytes()
