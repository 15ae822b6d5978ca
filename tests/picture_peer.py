"""A small HTTP server that captions by the bytes of a picture, and fails as a captioner may fail.

b"busy 2 ..."   503 with Retry-After, for the first two requests
b"cut 1 ..."    the connection breaks, for the first request
b"late 1 ..."   504, for the first request
b"bad ..."      400 image_undecodable, always
anything else   the caption "a picture of <bytes>"
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Peer:
    """Settings of the server, and what it was asked."""

    def __init__(self) -> None:
        self.address = ""
        #: Content of a picture -> how often it was sent.
        self.asked: Counter[str] = Counter()
        #: Pictures that are answered at this moment, and the most there were.
        self.now = self.most = 0
        #: Seconds that an answer takes.
        self.delay = 0.0
        #: The header Retry-After, and `retry_after_seconds` of the body.
        self.retry_after: str | None = "0"
        self.retry_after_seconds: float | None = None
        #: Answer to GET /v1/description; None for 404.
        self.description: Any = None
        self.described = 0
        self.lock = threading.Lock()


def caption_of(content: str) -> str:
    return f"a picture of {content}"


def reply_of(content: str) -> dict[str, Any]:
    caption = {
        "caption": caption_of(content),
        "confidence": 0.5,
        "log_prob": -2.0,
        "tokens": 3,
        "finish_reason": "end",
        "quality": 0.75,
        "features": [0.5],
    }
    return {
        "caption": caption["caption"],
        "confidence": 0.5,
        "quality": 0.75,
        "captions": [caption],
        "model": {"name": "clipcap", "version": "1.0"},
    }


@contextlib.contextmanager
def picture_peer(port: int = 0) -> Iterator[Peer]:
    """Run the server in threads of this process."""
    peer = Peer()
    connections: set[socket.socket] = set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            connections.add(self.connection)

        def finish(self) -> None:
            connections.discard(self.connection)
            with contextlib.suppress(OSError):  # the client has left
                super().finish()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found = re.search(rb'filename="picture"\r\n.*?\r\n\r\n(.*?)\r\n--', body, re.DOTALL)
            assert found
            content = found[1][:60].decode("latin-1")
            with peer.lock:
                peer.asked[content] += 1
                count = peer.asked[content]
                peer.now += 1
                peer.most = max(peer.most, peer.now)
            if peer.delay:
                time.sleep(peer.delay)
            with peer.lock:
                peer.now -= 1
            kind, _, times = content.partition(" ")
            failing = count <= int(times.split()[0]) if kind in ("busy", "cut", "late") else False
            if kind == "bad":
                self.fail(400, "image_undecodable")
            elif failing and kind == "cut":
                self.close_connection = True
            elif failing and kind == "late":
                self.fail(504, "deadline")
            elif failing:
                self.fail(503, "overloaded", peer.retry_after)
            else:
                self.send(200, reply_of(content))

        def do_GET(self) -> None:
            peer.described += 1
            if peer.description is None or self.path != "/v1/description":
                self.fail(404, "not_found")
            else:
                self.send(200, peer.description)

        def fail(self, status: int, code: str, retry_after: str | None = None) -> None:
            error: dict[str, Any] = {"status": status, "code": code, "message": f"[it] is {code}"}
            if status == 503 and peer.retry_after_seconds is not None:
                error["retry_after_seconds"] = peer.retry_after_seconds
            self.send(status, {"error": error}, retry_after)

        def send(self, status: int, reply: Any, retry_after: str | None = None) -> None:
            data = json.dumps(reply).encode()
            self.send_response(status)
            if retry_after is not None:
                self.send_header("Retry-After", retry_after)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_: Any) -> None:  # a client that was killed
            pass

    server = Server(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    peer.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield peer
    finally:
        server.shutdown()
        server.server_close()
        for connection in list(connections):  # those that wait for another request
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
