"""Reads the bodies of requests: each within a size and a time, all of them within one size.

A body counts from its first byte on until its request is answered. What it costs in memory depends
on its form (measured 2026-11-29 with a picture of 20 MB):

- bytes or a form: at most 2.7 times its size while it is read, 1.1 times while its caption is made;
- JSON: 4.8 times and 2.8 times, because the text, its value and the picture exist side by side.

One body is decoded at a time. So with the settings by default all bodies take at most
2.8 * 256 MiB + 4.8 * 64 MiB, which is about 1 GiB. Beside them there may be pictures whose client
has left while TorchServe had them, `max_at_once` at most, and 16 that were fetched by URL.

Copies of pictures for a captioner that is tried out get room only where requests leave it, and an
eighth of it at most. They never take room from a request, so at worst they come on top.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from starlette.types import Message, Receive

from gateway.errors import GatewayError
from gateway.measures import Measures
from gateway.settings import Settings
from gateway.telemetry.record import RECORD

#: For a body that cannot be read to its end, the rest of which is still on its way.
CLOSE = {"Connection": "close"}
#: Seconds after which a body that found no room may be sent again.
RETRY_SECONDS = 2


class Bodies:
    """The bodies that are in memory.

    Args:
        settings: The limits.
        measures: Shows how many bytes there are.
    """

    def __init__(self, settings: Settings, measures: Measures) -> None:
        self._settings = settings
        self._measures = measures
        self._held = 0
        self._copies = 0

    @property
    def copies(self) -> int:
        """Bytes of copies of pictures that are in memory."""
        return self._copies

    def take_copy(self, size: int) -> bool:
        """Count a copy of a picture, if there is room for it.

        Args:
            size: Its bytes.

        Returns:
            Whether there is; `give_copy_back` gives it back then.
        """
        limit = self._settings.max_bodies_bytes
        copies = self._copies + size
        if copies > limit // 8 or self._held + copies > limit:
            return False
        self._copies = copies
        return True

    def give_copy_back(self, size: int) -> None:
        """Count a copy no more."""
        self._copies -= size

    @contextlib.contextmanager
    def limited(self, receive: Receive) -> Iterator[Receive]:
        """A `receive` that refuses a body which is too large, comes too slowly or finds no room.

        Args:
            receive: That of the server.
        """
        end = asyncio.get_running_loop().time() + self._settings.body_seconds
        size, whole = 0, False

        async def limited() -> Message:
            nonlocal size, whole
            if whole:  # what comes now is only the end of the connection
                return await receive()
            try:
                async with asyncio.timeout_at(end):
                    message = await receive()
            except TimeoutError:
                raise GatewayError(
                    408,
                    "too_slow",
                    f"the request was not sent within {self._settings.body_seconds:g} s",
                    headers=CLOSE,
                ) from None
            count = len(message.get("body", b""))
            size += count
            if record := RECORD.get():
                record.bytes = size
            self._hold(count)
            whole = not message.get("more_body", False)
            if size > self._settings.max_body_bytes:
                raise self.too_large(f"more than {self._settings.max_body_bytes} bytes")
            if self._held > self._settings.max_bodies_bytes:
                raise GatewayError(
                    503,
                    "overloaded",
                    f"the requests that are being answered hold {self._settings.max_bodies_bytes} "
                    "bytes, which is the limit; send the request again later",
                    RETRY_SECONDS,
                    CLOSE,
                )
            return message

        try:
            yield limited
        finally:
            self._hold(-size)

    def too_large(self, found: str) -> GatewayError:
        """The error for a body that is over the limit of one.

        Args:
            found: Its size in words.
        """
        return GatewayError(
            413,
            "request_too_large",
            f"the request has {found}; the limit is {self._settings.max_body_bytes}; send fewer or "
            "smaller pictures",
            headers=CLOSE,
        )

    def _hold(self, count: int) -> None:
        self._held += count
        self._measures.body_bytes.set(self._held)
