"""Pictures by URL: what is fetched, and which addresses are not asked."""

from __future__ import annotations

import asyncio
import logging
import ssl

import pytest
import trustme
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from gateway.errors import GatewayError
from gateway.pictures.fetching import PARALLEL, Fetcher
from gateway.settings import Settings
from tests.unit.gateway.picture_servers import (
    LOOPBACK,
    PICTURE,
    UNKNOWN,
    WHOLE,
    Server,
    fetch,
    known,
    redirect,
    refusal,
    serving,
)

pytestmark = pytest.mark.usefixtures("authority")


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
