"""Connections of the gateway: many idle and slow ones, TLS, another TorchServe, and the end.

With 5 beams the TorchServe called `deadly` takes two seconds for a batch.
"""

from __future__ import annotations

import contextlib
import json
import resource
import select
import signal
import socket
import ssl
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from deploy.torchserve import TorchServe
from gateway.access.keys import add_key
from tests.integration.gateways import addresses_of, process, running, settings_for
from tests.pictures import sound

PNG = sound()["png"]
IDLE, SLOW_ONES = 1000, 200
BODY_HEAD = b"POST /v1/captions HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n"


def ask(address: str, num_beams: int = 1) -> httpx.Response:
    options = {"num_beams": num_beams}
    return httpx.post(f"{address}/v1/captions", content=PNG, params=options, timeout=60)


def connect(address: str) -> socket.socket:
    url = urlsplit(address)
    return socket.create_connection((str(url.hostname), int(url.port or 0)), timeout=30)


def received(connection: socket.socket, seconds: float = 30) -> bytes:
    """Everything up to the end of a connection."""
    connection.settimeout(seconds)
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def value(address: str, sample: str) -> float:
    """The value of a sample of the gateway's metrics."""
    lines = httpx.get(f"{address}/metrics", timeout=60).text.splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(f"{sample} "))


def until(true: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.05)


def test_idle_and_slow_connections_take_nothing_from_others(server: TorchServe, tmp_path: Path):
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(files, min(most, 4096)), most))
    settings = {**addresses_of(server), "head_seconds": 15, "body_seconds": 15}

    def median(address: str) -> float:
        spent = []
        with httpx.Client(timeout=60) as client:
            for _ in range(20):
                begin = time.perf_counter()
                reply = client.post(f"{address}/v1/captions", content=PNG)
                spent.append(time.perf_counter() - begin)
                assert reply.status_code == 200, reply.text
        return statistics.median(spent)

    with contextlib.ExitStack() as stack:
        _, address = stack.enter_context(process(tmp_path / "log", **settings))
        before = median(address)
        idle = [stack.enter_context(connect(address)) for _ in range(IDLE)]
        heads = [stack.enter_context(connect(address)) for _ in range(SLOW_ONES // 2)]
        bodies = [stack.enter_context(connect(address)) for _ in range(SLOW_ONES // 2)]
        begin = time.monotonic()
        for connection in heads:
            connection.sendall(b"POST /v1/captions HTTP/1.1\r\nX-Slow: ")
        for connection in bodies:
            connection.sendall(BODY_HEAD)
        ended = threading.Event()
        stack.callback(ended.set)

        def send_slowly() -> None:
            while not ended.wait(1):
                for connection in [*heads, *bodies]:
                    with contextlib.suppress(OSError):
                        connection.send(b"a")

        threading.Thread(target=send_slowly, daemon=True).start()
        assert value(address, "gateway_connections") > IDLE + SLOW_ONES
        during = median(address)
        assert time.monotonic() - begin < 15, "they were cut off before the end of the measurement"
        assert during < 2 * before + 0.05

        assert {received(each) for each in idle} == {b""}
        for connection in heads:
            assert received(connection).startswith(b"HTTP/1.1 408 ")
        for connection in bodies:
            assert received(connection).startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - begin < 15 + 15
        refused = 'gateway_connections_refused_total{reason="too_slow"}'
        assert value(address, refused) == len(heads)


@pytest.fixture
def quick(server: TorchServe) -> Iterator[str]:
    """A gateway with small limits."""
    limits = {"head_seconds": 1, "max_connections": 5}
    with running(settings_for(server, **limits)) as address:
        yield address


@pytest.mark.parametrize(
    ("sent", "reply"),
    [
        (b"", b""),
        (b"GET /healthz HTT", b"HTTP/1.1 408 "),
        (b"GET /healthz HTTP/1.1\r\nX-Long: " + b"a" * 20_000, b"HTTP/1.1 431 "),
        (b"GET /healthz\x00\r\n\r\n", b"HTTP/1.1 400 "),
    ],
    ids=["nothing", "half a head", "a large head", "not HTTP"],
)
def test_a_connection_without_a_proper_head_ends_with_an_error(
    quick: str, sent: bytes, reply: bytes
):
    begin = time.monotonic()
    with connect(quick) as connection:
        connection.sendall(sent)
        answer = received(connection)
    assert answer.startswith(reply)
    assert time.monotonic() - begin < 5
    if answer:
        head, _, body = answer.partition(b"\r\n\r\n")
        error = json.loads(body)["error"]
        assert str(error["status"]).encode() in reply
        assert f"Content-Length: {len(body)}".encode() in head


def test_bytes_do_not_put_off_the_end_of_a_connection(quick: str):
    begin = time.monotonic()
    with connect(quick) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n")
        while time.monotonic() - begin < 4:
            with contextlib.suppress(OSError):
                connection.send(b"a")
            if select.select([connection], [], [], 0.1)[0]:
                break
    assert 0.9 < time.monotonic() - begin < 3.9


def test_the_rest_of_a_body_that_was_refused_is_not_waited_for(server: TorchServe, tmp_path: Path):
    add_key(tmp_path / "keys", "someone")
    with (
        running(settings_for(server, keys=tmp_path / "keys", head_seconds=1)) as address,
        connect(address) as connection,
    ):
        begin = time.monotonic()
        connection.sendall(BODY_HEAD)
        answer = b""
        while time.monotonic() - begin < 6:
            with contextlib.suppress(OSError):
                connection.send(b"a")
            if select.select([connection], [], [], 0.1)[0]:
                try:
                    part = connection.recv(65536)
                except ConnectionResetError:
                    break
                if not part:
                    break
                answer += part
        assert answer.startswith(b"HTTP/1.1 401 ")
        assert time.monotonic() - begin < 5.9


def test_a_connection_stays_open_for_the_next_request(quick: str):
    with httpx.Client() as client:
        for _ in range(3):
            assert client.get(f"{quick}/healthz").status_code == 200
            time.sleep(0.5)
        assert value(quick, "gateway_connections") == 2  # this one, and that of the metrics


def test_more_connections_than_allowed_are_refused_and_served_later(quick: str):
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(connect(quick))
        time.sleep(0.2)
        reply = httpx.get(f"{quick}/healthz")
        assert (reply.status_code, reply.headers["Retry-After"]) == (503, "1")
        assert reply.json()["error"]["code"] == "overloaded"
    time.sleep(0.2)
    assert httpx.get(f"{quick}/healthz").status_code == 200


def test_bodies_find_room_only_together(server: TorchServe):
    limits = {"max_body_bytes": 1_000_000, "max_bodies_bytes": 1_000_000}
    with running(settings_for(server, **limits)) as address, connect(address) as first:
        assert ask(address).status_code == 200
        first.sendall(BODY_HEAD.replace(b"1000", b"900000") + b"a" * 899_999)
        until(lambda: value(address, "gateway_body_bytes") == 899_999)
        reply = httpx.post(f"{address}/v1/captions", content=b"a" * 500_000)
        assert (reply.status_code, reply.headers["Retry-After"]) == (503, "2")
        assert reply.json()["error"]["code"] == "overloaded"
        assert ask(address).status_code == 200  # a small one
        first.sendall(b"a")
        assert b"HTTP/1.1 400 " in first.recv(1000)  # it is no picture
        assert value(address, "gateway_body_bytes") == 0
        reply = httpx.post(f"{address}/v1/captions", content=b"a" * 500_000)
        assert reply.status_code == 400


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for a name that is not that of this machine, and its key; replaces another."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    words = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1")
    files = ("-keyout", key, "-out", certificate)
    subprocess.run(
        [*words, *files, "-subj", "/CN=captions.example"], check=True, capture_output=True
    )
    return certificate, key


def test_tls_is_spoken_and_its_certificate_renewed(server: TorchServe, tmp_path: Path):
    certificate, key = make_certificate(tmp_path)
    log = tmp_path / "log"
    settings = {**addresses_of(server), "tls_certificate": certificate, "tls_key": key}
    settings |= {"head_seconds": 2}

    def certificate_of(address: str) -> str:
        url = urlsplit(address)
        return ssl.get_server_certificate((str(url.hostname), int(url.port or 0))).strip()

    with process(log, **settings) as (gateway, address):
        assert address.startswith("https://")
        first = certificate.read_text().strip()
        assert certificate_of(address) == first
        trusted = ssl.create_default_context(cafile=str(certificate))
        trusted.check_hostname = False
        reply = httpx.post(f"{address}/v1/captions", content=PNG, verify=trusted, timeout=60)
        assert reply.json()["succeeded"] == 1

        with connect(address) as silent, connect(address) as plain:
            plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            assert not received(plain).startswith(b"HTTP/1.1 200")
            assert received(silent) == b""  # no handshake within head_seconds

        make_certificate(tmp_path)
        gateway.send_signal(signal.SIGHUP)
        second = certificate.read_text().strip()
        until(lambda: certificate_of(address) == second)
        key.write_text("no key")
        gateway.send_signal(signal.SIGHUP)
        until(lambda: "certificate refused, the one before stays: " in log.read_text())
        assert certificate_of(address) == second
        gateway.send_signal(signal.SIGTERM)
        assert gateway.wait(30) == 0


def test_it_goes_on_with_another_torchserve(server: TorchServe, deadly: TorchServe, tmp_path: Path):
    file, log = tmp_path / "gateway.toml", tmp_path / "log"

    def write(found: TorchServe) -> None:
        lines = [f'{name} = "{address}"\n' for name, address in addresses_of(found).items()]
        file.write_text("".join(lines))

    write(deadly)
    left = f" backend {deadly.rest}: its last request has ended\n"
    with process(log, ["--settings", file]) as (gateway, address), ThreadPoolExecutor(4) as pool:
        assert ask(address).status_code == 200
        waiting = pool.submit(ask, address, 5)
        in_flight = f'gateway_backend_in_flight{{inference="{deadly.rest}"}}'
        until(lambda: value(address, in_flight) == 1)
        write(server)
        gateway.send_signal(signal.SIGHUP)
        until(lambda: f" captions come from {server.rest}\n" in log.read_text())
        assert left not in log.read_text()
        assert value(address, f'gateway_backend_info{{inference="{server.rest}"}}') == 1
        assert ask(address, 5).status_code == 200  # not the slow one
        assert waiting.result().status_code == 200
        until(lambda: left in log.read_text())
        assert in_flight not in httpx.get(f"{address}/metrics").text

        file.write_text("inference = 1")
        gateway.send_signal(signal.SIGHUP)
        until(lambda: f"reload refused, everything stays as it is: {file}: inf" in log.read_text())
        assert ask(address).status_code == 200


def test_sigterm_answers_every_request_and_ends_with_status_0(deadly: TorchServe, tmp_path: Path):
    head = (
        f"POST /v1/captions?num_beams=5 HTTP/1.1\r\nHost: a\r\nContent-Length: {len(PNG)}\r\n\r\n"
    )
    with (
        contextlib.ExitStack() as stack,
        process(tmp_path / "log", **addresses_of(deadly)) as (gateway, address),
        connect(address),  # without a request
    ):
        assert ask(address).status_code == 200
        waiting = [stack.enter_context(connect(address)) for _ in range(20)]
        for connection in waiting:
            connection.sendall(head.encode() + PNG)
        until(lambda: value(address, "gateway_pictures_in_flight") == 20)
        with connect(address) as late:  # its request comes when the gateway stops already
            late.sendall(b"GET /healthz HTTP/1.1\r\n")
            time.sleep(0.2)
            gateway.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            late.sendall(b"Host: a\r\n\r\n")
            assert received(late).startswith(b"HTTP/1.1 200 ")
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{address}/healthz")
        assert gateway.poll() is None
        answers = [received(connection, 90) for connection in waiting]
        assert all(b'"succeeded":1' in answer for answer in answers), answers
        assert gateway.wait(30) == 0
