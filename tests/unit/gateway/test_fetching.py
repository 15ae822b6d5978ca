"""Pictures by URL, from servers that mean harm. Every server is a real one on loopback.

Loopback addresses stand for public ones by `fetch_allowed_networks`; 127.0.0.2 stands for what must
not be reached. Only the resolver is the tests' own, where a name is to have certain addresses.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any

import pytest
import trustme
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from gateway.errors import GatewayError
from gateway.pictures.fetching import PARALLEL, Fetcher, system_resolve
from gateway.settings import Settings

PICTURE = b"\x89PNG and more"
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(PICTURE), PICTURE)
LOOPBACK = ("127.0.0.1/32",)
UNKNOWN = "its host is unknown, or has an address that is not public"

Answer = Callable[[str, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(scope="module", autouse=True)
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[trustme.CA]:
    """What signs certificates; the only one that is trusted."""
    ca = trustme.CA()
    file = tmp_path_factory.mktemp("authority") / "ca.pem"
    ca.cert_pem.write_to_path(file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(file))
        yield ca


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


# What works


def test_a_picture_is_asked_for_without_anything_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.2:9")
    caplog.set_level(logging.INFO)

    async def go() -> tuple[bytes, Server]:
        async with serving(WHOLE) as server:
            url = f"http://Photos.Example:{server.port}/ä/a.png?secret=5#part"
            return await fetch(url, known(photos_example="127.0.0.1")), server

    picture, server = asyncio.run(go())
    assert picture == PICTURE
    first, *headers = server.asked[0].strip().split("\r\n")
    assert first == "GET /%C3%A4/a.png?secret=5 HTTP/1.1"
    found = dict(header.lower().split(": ", 1) for header in headers)
    assert set(found) == {"host", "user-agent", "accept", "accept-encoding"}
    assert found["host"] == f"photos.example:{server.port}"
    assert found["accept-encoding"] == "identity"
    assert "secret" not in caplog.text


def test_redirects_are_followed_without_cookies():
    async def answer(path: str, writer: asyncio.StreamWriter) -> None:
        elsewhere = f"http://b.example:{server.port}/c"
        writer.write({"/a": redirect("b?x=1", "Set-Cookie: a=b\r\n"),
                      "/b?x=1": redirect(elsewhere), "/c": WHOLE}[path])  # fmt: skip

    async def go() -> bytes:
        nonlocal server
        async with serving(answer) as server:
            names = known(a_example="127.0.0.1", b_example="127.0.0.1")
            return await fetch(f"http://a.example:{server.port}/a", names, fetch_redirects=2)

    server = Server(answer)
    assert asyncio.run(go()) == PICTURE
    assert server.paths() == ["/a", "/b?x=1", "/c"]
    assert f"Host: b.example:{server.port}" in server.asked[2]
    assert "cookie" not in "".join(server.asked).lower()


@pytest.mark.parametrize(
    ("host", "trusted"),
    [("photos.example", True), ("other.example", True), ("photos.example", False)],
)
def test_https_checks_the_name_of_the_url_at_the_address_that_was_checked(
    authority: trustme.CA, monkeypatch: pytest.MonkeyPatch, host: str, trusted: bool
):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("photos.example").configure_cert(tls)
    names: list[str | None] = []
    tls.sni_callback = lambda _, name, __: names.append(name)
    if not trusted:
        monkeypatch.delenv("SSL_CERT_FILE")

    async def go() -> bytes | GatewayError:
        async with serving(WHOLE, tls=tls) as server:
            asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # its failed TLS
            url = f"https://{host}:{server.port}/a.png"
            resolve = known(photos_example="127.0.0.1", other_example="127.0.0.1")
            try:
                return await fetch(url, resolve)
            except GatewayError as error:
                return error

    found = asyncio.run(go())
    assert names == [host]
    if trusted and host == "photos.example":
        assert found == PICTURE
    else:
        assert isinstance(found, GatewayError)
        assert (found.status_code, found.code) == (422, "fetch_failed")


def test_the_next_address_is_asked_if_one_does_not_answer():
    async def go() -> bytes:
        async with serving(WHOLE) as server:
            resolve = known(a_example=["127.0.0.3", "127.0.0.1"])
            url = f"http://a.example:{server.port}/"
            return await fetch(url, resolve, networks=("127.0.0.0/8",))

    assert asyncio.run(go()) == PICTURE


def test_an_address_of_ipv6_stands_in_brackets_in_the_header():
    async def go() -> str:
        async with serving(WHOLE, host="::1") as server:
            assert await fetch(f"http://[::1]:{server.port}/", networks=("::1/128",)) == PICTURE
            return server.asked[0].replace(str(server.port), "PORT")

    assert "Host: [::1]:PORT\r\n" in asyncio.run(go())


def test_only_so_many_pictures_are_fetched_and_in_memory_at_a_time():
    async def together(_: str, writer: asyncio.StreamWriter) -> None:
        if server.most == PARALLEL:
            await asyncio.sleep(0.3)  # for one more, if it were to come
            full.set()
        await full.wait()
        writer.write(WHOLE)

    async def go() -> int:
        nonlocal server
        async with serving(together) as server:
            fetcher = Fetcher(Settings(fetch_urls=True, fetch_allowed_networks=LOOPBACK))
            url = f"http://127.0.0.1:{server.port}/"

            async def keep() -> bytes:
                async with fetcher.fetched(url) as picture:
                    nonlocal kept, most_kept
                    kept += 1
                    most_kept = max(kept, most_kept)
                    await asyncio.sleep(0.1)  # as for its caption
                    kept -= 1
                    return picture

            kept = most_kept = 0
            found = await asyncio.gather(*(keep() for _ in range(3 * PARALLEL)))
            fetcher.close()
            assert found == [PICTURE] * (3 * PARALLEL)
            assert most_kept <= PARALLEL
            return server.most

    full = asyncio.Event()
    server = Server(together)
    assert asyncio.run(go()) == PARALLEL


# Addresses that must not be asked


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "017700000001",
        "0177.0.0.1",
        "0",
        "①②⑦.⓪.⓪.①",
        "127.0.0.1.",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::127.0.0.1]",
        "[2002:7f00:1::]",
    ],
)
def test_no_spelling_of_loopback_is_asked(host: str):
    async def go() -> tuple[GatewayError, Server]:
        async with serving(WHOLE, host="") as server:  # all addresses of this machine
            return await refusal(f"http://{host}:{server.port}/", networks=()), server

    error, server = asyncio.run(go())
    assert (error.status_code, error.code) == (422, "url_refused")
    assert not server.asked


@pytest.mark.parametrize(
    "addresses",
    [
        ["10.0.0.1"],
        ["172.16.0.1"],
        ["192.168.1.1"],
        ["127.0.0.2"],
        ["169.254.169.254"],
        ["100.64.0.1"],
        ["0.0.0.0"],
        ["224.0.0.1"],
        ["255.255.255.255"],
        ["::ffff:169.254.169.254"],
        ["fe80::1%eth0"],
        ["fd00:ec2::254"],
        ["ff02::1"],
        ["127.0.0.1"] * 50 + ["10.0.0.1"],
        ["127.0.0.1", "::1"],
        ["8.8.8.8", "10.0.0.1"],
        ["10.0.0.1", "8.8.8.8"],
        [],
    ],
)
def test_a_host_with_any_address_that_may_not_be_asked_is_refused_alike(addresses: list[str]):
    async def go() -> tuple[GatewayError, Server]:
        async with serving(WHOLE) as server:
            url = f"http://a.example:{server.port}/?secret=5"
            return await refusal(url, known(a_example=addresses)), server

    error, server = asyncio.run(go())
    assert not server.asked
    unknown = asyncio.run(refusal("http://no-such-name.invalid/"))
    assert error.to_dict() == unknown.to_dict()
    assert (error.status_code, error.code) == (422, "url_refused")
    assert UNKNOWN in error.detail


def test_a_name_that_changes_its_address_after_the_check_gains_nothing():
    answers = iter([["127.0.0.1"], ["127.0.0.2"], ["127.0.0.2"]])

    async def go() -> None:
        async with serving(WHOLE) as shown, serving(WHOLE, "127.0.0.2", shown.port) as hidden:
            url = f"http://a.example:{shown.port}/"
            assert await fetch(url, lambda _: next(answers)) == PICTURE
            assert len(shown.asked) == 1
            error = await refusal(url, lambda _: next(answers))
            assert error.code == "url_refused"
            assert not hidden.asked
            assert len(list(answers)) == 1  # asked once for each connection

    asyncio.run(go())


def test_a_name_that_changes_its_address_between_redirects_is_checked_again():
    answers = iter([["127.0.0.1"], ["127.0.0.2"]])
    again = redirect("/again", "Connection: close\r\n")

    async def go() -> None:
        async with serving(again) as shown, serving(WHOLE, "127.0.0.2", shown.port) as hidden:
            error = await refusal(f"http://a.example:{shown.port}/", lambda _: next(answers))
            assert error.code == "url_refused"
            assert shown.paths() == ["/"]
            assert not hidden.asked

    asyncio.run(go())


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.2:{port}/",
        "//127.0.0.2:{port}/",
        "http://hidden.example:{port}/",
        "http://169.254.169.254/latest/meta-data/",
        "file:///etc/passwd",
        "ftp://127.0.0.1:{port}/a.png",
        "gopher://127.0.0.1:{port}/_GET",
        "data:image/png;base64,AAAA",
        "http://user:word@127.0.0.1:{port}/",
        "http://[::1",
        "http://127.0.0.1:0/",
        "http://127.0.0.1:99999/",
    ],
)
@pytest.mark.parametrize("through_redirect", [False, True])
def test_an_address_that_may_not_be_asked_is_refused_directly_and_as_a_redirect(
    target: str, through_redirect: bool
):
    async def go() -> None:
        async def answer(path: str, writer: asyncio.StreamWriter) -> None:
            writer.write(redirect(to) if path == "/first" else WHOLE)

        async with serving(answer) as shown, serving(WHOLE, "127.0.0.2", shown.port) as hidden:
            to = target.format(port=shown.port)
            url = f"http://127.0.0.1:{shown.port}/first" if through_redirect else to
            error = await refusal(url, known(hidden_example="127.0.0.2"))
            assert (error.status_code, error.code) == (422, "url_refused"), error
            assert shown.paths() == ["/first"] * through_redirect
            assert not hidden.asked

    asyncio.run(go())


@pytest.mark.parametrize("port", [22, 25, 8080])
def test_public_addresses_are_asked_on_the_ports_of_the_web_only(port: int):
    error = asyncio.run(refusal(f"http://a.example:{port}/", known(a_example="8.8.8.8")))
    assert error.code == "url_refused"
    assert f"its port is {port}; only 80 and 443 are asked" in error.detail


@examples(deadline=None)
@given(st.text() | st.text().map("http://{}".format) | st.text().map("https://a.example{}".format))
def test_whatever_stands_in_place_of_a_url_is_refused_in_one_line(text: str):
    def unknown(_: str) -> list[str]:
        raise OSError

    error = asyncio.run(refusal(text, unknown))
    assert (error.status_code, error.code) == (422, "url_refused")
    assert "\n" not in error.detail


def test_a_url_without_a_host_is_refused():
    assert "it has no host" in asyncio.run(refusal("http:///a.png")).detail


@pytest.mark.parametrize("host", ["a..example", "a" * 64 + ".example", f"{'a.' * 200}example"])
def test_a_name_that_cannot_be_resolved_is_refused(host: str):
    assert UNKNOWN in asyncio.run(refusal(f"http://{host}/")).detail


# Answers that mean harm


async def endless_body(_: str, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    await repeat(writer, bytes(10_000))


async def endless_chunks(_: str, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    await repeat(writer, b"1\r\nx\r\n" * 1000)


async def endless_headers(_: str, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    await repeat(writer, b"X-More: 1\r\n" * 1000)


async def endless_redirect(path: str, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 302 Found\r\nLocation: /again\r\n\r\n")
    await repeat(writer, bytes(10_000))


async def endless_promises(_: str, writer: asyncio.StreamWriter) -> None:
    await repeat(writer, b"HTTP/1.1 102 Processing\r\n\r\n" * 1000)


async def repeat(writer: asyncio.StreamWriter, block: bytes) -> None:
    while True:  # until the other side ends the connection
        writer.write(block)
        await writer.drain()


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        (endless_body, 413, "request_too_large"),
        (endless_chunks, 413, "request_too_large"),
        (endless_headers, 422, "fetch_failed"),
        (endless_redirect, 422, "fetch_failed"),
        (endless_promises, 422, "fetch_failed"),
    ],
)
def test_what_has_no_end_is_cut(answer: Answer, status: int, code: str):
    error = asyncio.run(answered(answer))
    assert (error.status_code, error.code) == (status, code)
    assert "within" not in error.detail  # by its size, not by the time


def test_thousands_of_tiny_blocks_leave_time_for_other_requests():
    async def go() -> int:
        limits = {"fetch_seconds": 1.0, "max_picture_bytes": 1 << 30}
        fetching = asyncio.create_task(answered(endless_chunks, **limits))
        turns = 0
        while not fetching.done():
            await asyncio.sleep(0.001)
            turns += 1
        assert "within" in fetching.result().detail
        return turns

    assert asyncio.run(go()) > 30


async def slow_headers(_: str, writer: asyncio.StreamWriter) -> None:
    await drip(writer, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")


async def slow_body(_: str, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")
    await drip(writer, bytes(500))


async def silence(_: str, writer: asyncio.StreamWriter) -> None:
    await drip(writer, b"")
    await asyncio.sleep(5)


async def slow_redirects(_: str, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(0.2)
    writer.write(redirect("/again"))


async def drip(writer: asyncio.StreamWriter, data: bytes) -> None:
    for byte in data:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("answer", [slow_headers, slow_body, silence, slow_redirects])
def test_what_comes_slowly_is_cut_by_the_total_time(answer: Answer):
    begin = time.monotonic()
    error = asyncio.run(answered(answer, fetch_seconds=0.5, fetch_redirects=100))
    assert (error.status_code, error.code) == (422, "fetch_failed")
    assert "within 0.5 s" in error.detail
    assert time.monotonic() - begin < 4


def test_tls_that_does_not_begin_is_cut_by_the_total_time():
    async def go() -> GatewayError:
        async with serving(silence) as server:
            return await refusal(f"https://127.0.0.1:{server.port}/", fetch_seconds=0.3)

    assert "within 0.3 s" in asyncio.run(go()).detail


def test_slow_resolvers_are_cut_by_the_total_time_and_hold_up_nothing_else():
    async def go() -> list[GatewayError]:
        fetches = [refusal("http://a.example/", slow, fetch_seconds=0.5) for _ in range(PARALLEL)]
        refused = asyncio.gather(*fetches)
        await asyncio.sleep(0.1)
        # The threads of the event loop serve other requests.
        await asyncio.wait_for(asyncio.to_thread(lambda: None), 10)
        return await refused

    def slow(_: str) -> list[str]:
        ended.wait(60)
        return ["127.0.0.1"]

    ended = threading.Event()
    try:
        assert {error.detail for error in asyncio.run(go())} == {
            "no picture was fetched from the URL: its server did not send it within 0.5 s; send "
            "the bytes"
        }
    finally:
        ended.set()


def test_a_length_over_the_limit_is_refused_before_the_body():
    async def head_only(_: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n")
        await silence("", writer)

    error = asyncio.run(answered(head_only))
    assert (error.status_code, error.code) == (413, "request_too_large")
    assert "more than 1000 bytes" in error.detail


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: x\r\nContent-Length: 5\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000_000 + b"\r\nContent-Length: 5\r\n\r\nshort",
        b"HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\n\r\nshort",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nshort",
        b"HTTP/1.1 500 Fault\r\nContent-Length: 5\r\n\r\nshort",
        b"HTTP/1.1 302 Found\r\nContent-Length: 5\r\n\r\nshort",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\nshort",
        b"220 mail.example ESMTP\r\n",
        b"short",
        b"",
    ],
)
def test_an_answer_that_is_no_whole_picture_is_an_error_that_shows_nothing_of_it(answer: bytes):
    error = asyncio.run(answered(answer))
    assert (error.status_code, error.code) == (422, "fetch_failed")
    assert "short" not in error.detail
    assert "127.0.0.1" not in error.detail


def test_a_length_below_that_of_the_body_cuts_it():
    async def go() -> bytes:
        async with serving(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nshort and more") as server:
            return await fetch(f"http://127.0.0.1:{server.port}/")

    assert asyncio.run(go()) == b"short"


def test_a_port_where_nothing_listens_is_an_error_of_the_url():
    async def go() -> GatewayError:
        async with serving(WHOLE) as server:
            pass
        return await refusal(f"http://127.0.0.1:{server.port}/")

    assert asyncio.run(go()).code == "fetch_failed"


@pytest.mark.parametrize(("limit", "asked"), [(0, 1), (3, 4)])
def test_a_loop_of_redirects_ends(limit: int, asked: int):
    async def go() -> None:
        async with serving(redirect("/loop")) as server:
            url = f"http://127.0.0.1:{server.port}/loop"
            error = await refusal(url, fetch_redirects=limit)
            assert (error.status_code, error.code) == (422, "fetch_failed")
            assert f"more than {limit} times" in error.detail
            assert len(server.asked) == asked

    asyncio.run(go())
