"""Connections to the server of a picture's URL: only to addresses that were checked.

The host is resolved here, every address of it is checked, and the connection goes to one of the
addresses that were checked. A name that resolves to another address a moment later therefore
changes nothing.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_network
from typing import Any

import httpcore

from gateway.errors import UrlRefused
from gateway.pictures.addresses import PORTS, is_in, is_public, read_address

#: Seconds to connect to one address of a host, before the next is tried.
CONNECT_SECONDS = 3.0
#: Most bytes of an answer before its body, and how many of them are read at a time.
HEAD_BYTES = 32 << 10
HEAD_PART = 1 << 10

#: Gives the addresses of a host, as text; raises OSError if it has none.
Resolve = Callable[[str], Sequence[str]]


def system_resolve(host: str) -> list[str]:
    """The addresses of a host, as the operating system resolves them."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


class CheckedNetwork(httpcore.AnyIOBackend):
    """Connects to addresses that were checked.

    httpcore calls it with the host of the URL, and takes the same host as the name for TLS.

    Args:
        allowed: Networks such as `10.1.0.0/16` that may be asked beside the public internet.
        resolve: Called in one of the threads, because resolvers block.
        threads: Where it is called.
    """

    def __init__(
        self, allowed: Iterable[str], resolve: Resolve, threads: ThreadPoolExecutor
    ) -> None:
        self._allowed = [ip_network(text) for text in allowed]
        self._resolve = resolve
        self._threads = threads

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address of a host that answers.

        Raises:
            UrlRefused: One of its addresses may not be asked.
            httpcore.ConnectError, httpcore.ConnectTimeout: None of them answers.
        """
        loop = asyncio.get_running_loop()
        try:
            texts = await loop.run_in_executor(self._threads, self._resolve, host)
        except (OSError, UnicodeError):  # UnicodeError: a label of the name is too long
            texts = []
        addresses = [read_address(text) for text in texts]
        foreign = [each for each in addresses if not is_in(each, self._allowed)]
        # One message: whether a name of the private network exists is nobody's business.
        if not addresses or not all(is_public(each) for each in foreign):
            raise UrlRefused("its host is unknown, or has an address that is not public")
        if foreign and port not in PORTS:
            raise UrlRefused(f"its port is {port}; only {PORTS[0]} and {PORTS[1]} are asked")
        for address in addresses[:-1]:
            try:
                return await self._connect(str(address), port)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._connect(str(addresses[-1]), port)

    async def _connect(self, address: str, port: int) -> httpcore.AsyncNetworkStream:
        return Stream(await super().connect_tcp(address, port, CONNECT_SECONDS))


class Stream(httpcore.AsyncNetworkStream):
    """A connection for one answer, whose head is limited and read in small parts.

    A server may send interim answers (1xx) without end, and thousands that are read at once would
    hold up every other request of the gateway while they are parsed.
    """

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._head_left = HEAD_BYTES
        self._in_body = False

    def begin_body(self) -> None:
        """Read without these limits from now on."""
        self._in_body = True

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read some bytes; none at the end."""
        if self._in_body:
            return await self._stream.read(max_bytes, timeout)
        if not self._head_left:
            raise httpcore.RemoteProtocolError(f"the head has more than {HEAD_BYTES} bytes")
        data = await self._stream.read(min(max_bytes, HEAD_PART, self._head_left), timeout)
        self._head_left -= len(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write bytes."""
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """The same connection under TLS."""
        return Stream(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        """What httpcore asks about the connection."""
        return self._stream.get_extra_info(info)
