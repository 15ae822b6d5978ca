"""SIGTERM in the middle of many connections: each that was made gets its answer."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from urllib.parse import urlsplit

from tests.integration.gateways import process


def test_what_has_connected_before_the_end_is_answered(tmp_path: Path):
    with contextlib.ExitStack() as stack:
        gateway, address = stack.enter_context(process(tmp_path / "log"))
        port = int(urlsplit(address).port or 0)
        connections = []
        for number in range(200):
            # Some of the last ones are not accepted yet when the gateway learns that it shall stop.
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            connections.append(connection)
            if number == 190:
                gateway.terminate()
        for connection in connections:
            connection.settimeout(60)
            assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
        assert gateway.wait(60) == 0
