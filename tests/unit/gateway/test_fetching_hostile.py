"""Pictures by URL from servers that mean harm: answers without an end, slow ones, broken ones."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from gateway.errors import GatewayError
from gateway.pictures.fetching import PARALLEL
from tests.unit.gateway.picture_servers import (
    WHOLE,
    Answer,
    answered,
    fetch,
    redirect,
    refusal,
    serving,
)

pytestmark = pytest.mark.usefixtures("authority")


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
