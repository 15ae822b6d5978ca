"""Servers of pictures for the tests of fetching, and what is asked of them. All are on loopback.

Loopback addresses stand for public ones by `fetch_allowed_networks`; 127.0.0.2 stands for what must
not be reached. Only the resolver is the tests' own, where a name is to have certain addresses.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest

from gateway.errors import GatewayError
from gateway.pictures.fetching import Fetcher, system_resolve
from gateway.settings import Settings

PICTURE = b"\x89PNG and more"
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(PICTURE), PICTURE)
LOOPBACK = ("127.0.0.1/32",)
UNKNOWN = "its host is unknown, or has an address that is not public"

Answer = Callable[[str, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """A server that answers as a test says.

    Attributes:
        port: Where it listens.
        asked: The head of each request so far.
        most: Most requests that were open at a time.
    """

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._open = 0
        self.port = 0
        self.asked: list[str] = []
        self.most = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        self.most = max(self.most, self._open)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.asked.append(head)
            await self._answer(head.split()[1], writer)
            await writer.drain()
        self._open -= 1
        writer.close()

    def paths(self) -> list[str]:
        return [head.split()[1] for head in self.asked]


@contextlib.asynccontextmanager
async def serving(
    answer: Answer | bytes,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Server]:
    """A server that answers with these bytes, or as a function does."""

    async def constant(_: str, writer: asyncio.StreamWriter) -> None:
        assert isinstance(answer, bytes)
        writer.write(answer)

    server = Server(constant if isinstance(answer, bytes) else answer)
    listening = await asyncio.start_server(server.handle, host, port, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()


def known(**addresses: str | Sequence[str]) -> Callable[[str], Sequence[str]]:
    """A resolver of these names, `_` for a dot, and of addresses."""

    def resolve(host: str) -> Sequence[str]:
        found = addresses.get(host.replace(".", "_"))
        if found is None:
            return system_resolve(host)
        return [found] if isinstance(found, str) else found

    return resolve


async def fetch(
    url: str,
    resolve: Callable[[str], Sequence[str]] = system_resolve,
    networks: tuple[str, ...] = LOOPBACK,
    **settings: Any,
) -> bytes:
    """Fetch within 20 s and at most 1000 bytes, unless a test says otherwise."""
    limits = {"fetch_seconds": 20.0, "max_picture_bytes": 1000, **settings}
    fetcher = Fetcher(Settings(fetch_urls=True, fetch_allowed_networks=networks, **limits), resolve)
    try:
        async with fetcher.fetched(url) as picture:
            return picture
    finally:
        fetcher.close()


async def refusal(url: str, *args: Any, **settings: Any) -> GatewayError:
    with pytest.raises(GatewayError) as raised:
        await fetch(url, *args, **settings)
    return raised.value


async def answered(answer: Answer | bytes, **settings: Any) -> GatewayError:
    """The error that this answer of a server gives."""
    async with serving(answer) as server:
        return await refusal(f"http://127.0.0.1:{server.port}/a.png", **settings)


def redirect(to: str, more: str = "") -> bytes:
    return f"HTTP/1.1 302 Found\r\nLocation: {to}\r\n{more}Content-Length: 0\r\n\r\n".encode()
