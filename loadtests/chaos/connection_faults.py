"""Clients that send nothing, send a byte a second, or leave; and very many of them."""

from __future__ import annotations

import contextlib
import resource
import socket
import time
import urllib.parse
from collections.abc import Iterator

from loadtests.chaos.case import Case, Skipped, check, wait_until
from loadtests.chaos.clients import Clients
from loadtests.chaos.stage import Stage

#: Bad clients of each kind.
BAD = 50
BAD_SECONDS = 12.0
#: The gateway's limit for a body, in the case of bad clients.
BODY_SECONDS = 5
MANY = 10_000
MANY_SECONDS = 15.0
#: Files of this process beside connections.
OTHER_FILES = 500


@contextlib.contextmanager
def open_connections(address: str, count: int) -> Iterator[list[socket.socket]]:
    """Connections to the gateway that have sent nothing, closed at the end of the `with` block.

    Args:
        address: Of the gateway.
        count: How many; fewer are open if the gateway takes no more.
    """
    url = urllib.parse.urlsplit(address)
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(count):
            connection = stack.enter_context(socket.socket())
            connection.setblocking(False)
            connection.connect_ex((url.hostname, url.port))
            found.append(connection)
        yield found


def bad_clients(stage: Stage) -> str:
    """Connect clients that send nothing, a byte a second, or leave before their answer."""
    settings = {"GATEWAY_BODY_SECONDS": str(BODY_SECONDS)}
    picture = stage.pictures[0]
    head = f"POST /v1/captions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(picture)}\r\n\r\n"
    with stage.serving(settings) as serving, stage.sending(serving) as clients:
        stage.mark("bad clients")
        with (
            open_connections(serving.address, BAD),
            open_connections(serving.address, BAD) as slow,
            open_connections(serving.address, BAD) as leaving,
        ):
            time.sleep(1)  # until they are connected
            for connection in leaving:
                connection.sendall(head.encode() + picture)
            for connection in slow:
                connection.sendall(head.encode())
            time.sleep(0.2)
            for connection in leaving:
                connection.close()
            end = time.monotonic() + BAD_SECONDS
            for byte in iter(picture):
                if time.monotonic() > end:
                    break
                for connection in slow:
                    with contextlib.suppress(OSError):  # the gateway has closed it
                        connection.send(bytes([byte]))
                time.sleep(1)
            told = sum(_received(connection).startswith(b"HTTP/1.1 408") for connection in slow)
        stage.mark("gone")
        clients.wait_for_answers()
        wait_until(
            lambda: serving.metric("gateway_pictures_in_flight") <= 10,
            30,
            "pictures of clients that left are still held",
        )
    clients.check_none_lost()
    check(told == BAD, f"{told} of {BAD} slow clients were told 408")
    return f"slow clients were told 408 after {BODY_SECONDS} s"


def many_connections(stage: Stage) -> str:
    """Open more connections than the gateway may take."""
    _allow_files(MANY + OTHER_FILES)
    with stage.serving() as serving, stage.sending(serving) as clients:
        process = serving.process
        assert process is not None
        before = process.memory_info().rss
        stage.mark(f"{MANY:,} connections")
        with open_connections(serving.address, MANY) as connections:
            time.sleep(MANY_SECONDS)
            taken = sum(_is_open(connection) for connection in connections)
            grown = (process.memory_info().rss - before) / 1e6
            check(process.is_running(), "the gateway has ended")
        stage.mark("closed")
        clients.wait_for_answers()
        turned_away = _count_turned_away(clients)
    clients.check_none_lost(allow_refused=True)
    return (
        f"{taken} were still open after {MANY_SECONDS:g} s; the gateway took {grown:.0f} MB more; "
        f"{turned_away} requests were turned away meanwhile, all later ones answered"
    )


def _count_turned_away(clients: Clients) -> int:
    """Count requests as refused that the gateway had no connection for."""
    for sample in list(clients.lost):
        if sample.outcome == "503 overloaded" or sample.outcome.startswith("no answer"):
            clients.count_as_refused(sample)
    return len(clients.refused)


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(1 << 16)
    except OSError:
        return b""


def _is_open(connection: socket.socket) -> bool:
    """Whether a connection that nothing came on is open still."""
    try:
        return bool(connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except BlockingIOError:
        return True
    except OSError:
        return False


def _allow_files(wanted: int) -> None:
    """Let this process, and those that it starts, open so many files.

    Raises:
        Skipped: The system does not allow it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY != hard < wanted:
        raise Skipped(f"{wanted} open files are needed, but {hard} are allowed (ulimit -Hn)")
    if resource.RLIM_INFINITY != soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


CASES = [
    Case(
        "bad-clients",
        f"{BAD} clients that send nothing, {BAD} that send a byte a second, {BAD} that leave",
        "no other request lost; the slow ones are told 408",
        bad_clients,
    ),
    Case(
        "many-connections",
        f"{MANY:,} connections at once",
        "requests are captioned or turned away; the gateway does not end, and answers all when "
        "the connections are closed",
        many_connections,
    ),
]
