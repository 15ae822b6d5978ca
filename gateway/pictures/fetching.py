"""Fetches a picture by its URL, from public addresses only, within limits of time and size.

Every connection, for a redirect too, goes through `checked_network`. Nothing of the environment or
of the client's request is passed on: no proxy, no cookie, no key.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import httpcore
import httpx

from gateway import __version__
from gateway.errors import GatewayError, UrlRefused
from gateway.pictures.checked_network import CheckedNetwork, Resolve, system_resolve
from gateway.settings import Settings

#: Most pictures that are fetched and then in memory at a time; the others wait. A request by URL is
#: small, so `gateway/access/bodies.py` does not count what it brings into memory.
PARALLEL = 16
REDIRECTS = (301, 302, 303, 307, 308)
HEADERS: dict[bytes | str, bytes | str] = {
    "User-Agent": f"clipcap-gateway/{__version__}",
    "Accept": "image/*",
    "Accept-Encoding": "identity",  # a small compressed body may unpack to gigabytes
}


class Fetcher:
    """Fetches pictures by URL.

    Args:
        settings: The limits, and networks that may be asked beside the public internet.
        resolve: Called in a thread of the fetcher's own, because resolvers block.
    """

    def __init__(self, settings: Settings, resolve: Resolve = system_resolve) -> None:
        self._settings = settings
        self._slots = asyncio.Semaphore(PARALLEL)
        # Not the event loop's own threads: slow name servers must hold up nothing else.
        self._threads = ThreadPoolExecutor(PARALLEL, "resolve")
        self._network = CheckedNetwork(settings.fetch_allowed_networks, resolve, self._threads)
        self._tls = httpx.create_ssl_context()

    @contextlib.asynccontextmanager
    async def fetched(self, url: str) -> AsyncIterator[bytes]:
        """Fetch one picture; it counts as one in memory until the `with` ends.

        Args:
            url: With http or https.

        Returns:
            The body of the answer, which may be empty.

        Raises:
            GatewayError: The URL is refused, or there is no answer with a body within the limits.
        """
        seconds = self._settings.fetch_seconds
        async with self._slots:
            try:
                async with asyncio.timeout(seconds):
                    picture = await self._follow(_checked_url(url))
            except TimeoutError:
                raise _failed(f"its server did not send it within {seconds:g} s") from None
            except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError):
                raise _failed("its server cannot be reached or broke off") from None
            yield picture

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _follow(self, url: httpx.URL) -> bytes:
        """The body at a URL, or where it redirects to."""
        limit = self._settings.fetch_redirects
        async with httpcore.AsyncConnectionPool(
            ssl_context=self._tls,
            network_backend=self._network,
            max_keepalive_connections=0,  # each request checks the addresses anew
        ) as pool:
            for _ in range(limit + 1):
                target = httpcore.URL(
                    scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
                )
                # httpcore's own Host header would lack the brackets of an IPv6 address.
                headers = {**HEADERS, "Host": url.netloc}
                async with pool.stream("GET", target, headers=headers) as reply:
                    answered = httpx.Headers(reply.headers)
                    if reply.status not in REDIRECTS:
                        return await self._body(reply, answered)
                    url = _checked_url(answered.get("location", ""), url)
        raise _failed(f"it redirects more than {limit} times")

    async def _body(self, reply: httpcore.Response, headers: httpx.Headers) -> bytes:
        if reply.status != 200:
            raise _failed(f"its server answered with status {reply.status}")
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise _failed("its server sent it compressed, which it was asked not to do")
        limit = self._settings.max_picture_bytes
        too_large = GatewayError(
            413,
            "request_too_large",
            f"the picture at the URL has more than {limit} bytes; give a smaller version",
        )
        if int(headers.get("content-length", "0")) > limit:
            raise too_large
        reply.extensions["network_stream"].begin_body()
        body = bytearray()  # a list of blocks would need much memory for blocks of one byte
        async for block in reply.aiter_stream():
            body += block
            if len(body) > limit:
                raise too_large
            await asyncio.sleep(0)  # thousands of blocks may have come at once
        return bytes(body)


def _checked_url(text: str, base: httpx.URL | None = None) -> httpx.URL:
    """A URL that may be asked, as far as its text shows.

    Args:
        text: The URL, or where a redirect leads.
        base: The URL that redirected, which `text` may be relative to.
    """
    try:
        url = base.join(text) if base else httpx.URL(text)
    except (httpx.InvalidURL, ValueError):  # ValueError: a lone surrogate, which JSON may hold
        raise UrlRefused("it is not a valid URL") from None
    if url.scheme not in ("http", "https"):
        raise UrlRefused("it does not begin with http:// or https://")
    if not url.host or (url.port is not None and not 0 < url.port < 1 << 16):
        raise UrlRefused("it has no host, or a port that does not exist")
    if url.userinfo:
        raise UrlRefused("it holds a user name or a password")
    return url


def _failed(why: str) -> GatewayError:
    return GatewayError(
        422, "fetch_failed", f"no picture was fetched from the URL: {why}; send the bytes"
    )
