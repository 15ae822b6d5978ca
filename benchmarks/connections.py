"""Kept HTTP/1.1 connections that ask a caption server with as little work as possible.

Clients and servers share the cores of one machine here, so what a client spends is missing to the
servers. `client` spends 1 to 2 ms on a request, these connections about 0.1 ms: a request is ready
bytes, and of a reply only the status and the length are read.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import time
import urllib.parse
from collections.abc import AsyncIterator, Mapping, Sequence

from model.refusal import Refusal

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
#: Seconds between two bytes of a slow connection.
SLOW_PAUSE = 1.0


def prediction(picture: bytes, model: str = "clipcap") -> bytes:
    """A request for the captions of a picture, which TorchServe and the gateway both take."""
    head = (
        f"POST /predictions/{model} HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
    )
    return head.encode() + picture


class Connection:
    """One kept connection, which asks one request at a time.

    Args:
        reader: Of the connection.
        writer: Of the connection.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    @contextlib.asynccontextmanager
    async def to(cls, address: str) -> AsyncIterator[Connection]:
        """Connect; closes at the end.

        Args:
            address: `http://HOST:PORT`.
        """
        url = urllib.parse.urlsplit(address)
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        try:
            yield cls(reader, writer)
        finally:
            writer.close()

    async def ask(self, request: bytes) -> None:
        """Send a request and read its reply.

        Raises:
            Refusal: The reply has no status 200, or the connection ended.
        """
        try:
            self._writer.write(request)
            head = await self._reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(head)
            body = await self._reader.readexactly(int(length[1])) if length else b""
        except (asyncio.IncompleteReadError, OSError) as error:
            raise Refusal(f"the server ended the connection ({type(error).__name__})") from None
        if not head.startswith(b"HTTP/1.1 200 "):
            raise Refusal(f"the server answered {(head[9:12] + b' ' + body[:200]).decode()}")

    async def until_closed(self) -> None:
        """Read what comes, until the server ends the connection."""
        with contextlib.suppress(OSError):
            await self._reader.read()

    async def trickle(self) -> None:
        """Send a request byte by byte, until the server ends the connection."""
        self._writer.write(b"POST /predictions/clipcap HTTP/1.1\r\nHost: localhost\r\n")
        self._writer.write(b"Content-Length: 1000000\r\n\r\n")
        while not self._writer.is_closing():
            self._writer.write(b"x")
            await asyncio.sleep(SLOW_PAUSE)


async def in_turn(
    addresses: Mapping[str, str], requests: Sequence[bytes], count: int
) -> dict[str, list[float]]:
    """Latency of one client at a time, which asks every server with the same request in turn.

    Args:
        addresses: Name -> `http://HOST:PORT`.
        requests: Sent in turn.
        count: Requests to each server.

    Returns:
        Name -> seconds of each request; the same index is the same turn.
    """
    seconds: dict[str, list[float]] = {name: [] for name in addresses}
    async with contextlib.AsyncExitStack() as opened:
        connections = {
            name: await opened.enter_async_context(Connection.to(address))
            for name, address in addresses.items()
        }
        for connection in connections.values():
            await connection.ask(requests[0])
        for turn in range(count):
            request = requests[turn % len(requests)]
            for name in list(connections)[:: -1 if turn % 2 else 1]:
                begin = time.perf_counter()
                await connections[name].ask(request)
                seconds[name].append(time.perf_counter() - begin)
    return seconds


async def flood(
    address: str, requests: Sequence[bytes], connections: int, count: int
) -> list[float]:
    """Keep a number of requests under way.

    Args:
        address: `http://HOST:PORT`.
        requests: Sent in turn.
        connections: Requests under way at a time.
        count: Requests in all.

    Returns:
        The moments of the answers, in their order (`time.perf_counter`).
    """
    remaining = itertools.islice(itertools.cycle(requests), count)
    answered: list[float] = []

    async def ask_on() -> None:
        async with Connection.to(address) as connection:
            for request in remaining:
                await connection.ask(request)
                answered.append(time.perf_counter())

    await asyncio.gather(*(ask_on() for _ in range(connections)))
    return answered


@contextlib.asynccontextmanager
async def crowd(address: str, idle: int, slow: int) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Connections that send nothing, and others that send a request byte by byte.

    Args:
        address: `http://HOST:PORT`.
        idle: Number of those that send nothing.
        slow: Number of the others.

    Returns:
        For each a task that ends when the server closes the connection. All are closed at the end.
    """
    async with contextlib.AsyncExitStack() as opened:
        found = [
            await opened.enter_async_context(Connection.to(address)) for _ in range(idle + slow)
        ]
        open_ones = [asyncio.create_task(each.until_closed()) for each in found]
        slow_ones = [asyncio.create_task(each.trickle()) for each in found[idle:]]
        try:
            yield open_ones
        finally:
            for task in (*open_ones, *slow_ones):
                task.cancel()
            await asyncio.gather(*open_ones, *slow_ones, return_exceptions=True)
