"""A small HTTP server of files that behaves as badly as real ones, one request after the other."""

from __future__ import annotations

import dataclasses
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

#: Status, headers and body.
Answer = tuple[int, dict[str, str], bytes]


@dataclasses.dataclass
class FileServer:
    """What is served, how, and what was asked for.

    Attributes:
        files: Path of the URL -> its bytes.
        etags: Path -> ETag; without one there is none.
        headers: Path -> other headers of the answer.
        redirects: Path -> where a request for it is sent.
        not_found: Path -> headers of the answer 404, or of another `status`.
        ranges: Whether the server knows ranges.
        shift: How far from what was asked a range begins.
        cuts: For each coming GET, after how many bytes the connection is reset.
        answers: For each coming request, a status to answer with instead.
        redirect: Where every request is sent instead.
        sent: Bytes of bodies sent so far.
        pause: Seconds before each block of 64 kB.
        stall: Blocks of each answer before one that comes a second later.
        sized: Whether the size is told.
        asked: Method, path and range of every request so far.
        authorizations: Path -> the Authorization header of the last request for it.
        takes: Answers a POST or PUT, given its path, headers and body.
        address: Where it listens.
    """

    files: dict[str, bytes] = dataclasses.field(default_factory=dict)
    etags: dict[str, str] = dataclasses.field(default_factory=dict)
    headers: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)
    redirects: dict[str, str] = dataclasses.field(default_factory=dict)
    not_found: Callable[[str], dict[str, str]] = lambda _: {}
    ranges: bool = True
    shift: int = 0
    cuts: list[int] = dataclasses.field(default_factory=list)
    answers: list[int] = dataclasses.field(default_factory=list)
    redirect: str | None = None
    sent: int = 0
    pause: float = 0.0
    stall: int | None = None
    sized: bool = True
    asked: list[tuple[str, str, str | None]] = dataclasses.field(default_factory=list)
    authorizations: dict[str, str | None] = dataclasses.field(default_factory=dict)
    takes: Callable[[str, Mapping[str, str], bytes], Answer] = lambda *_: (404, {}, b"")
    address: str = ""


@contextmanager
def file_server() -> Iterator[FileServer]:
    """A server on a free port of this machine."""
    state = FileServer()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:  # noqa: N802, its name in http.server
            self.answer(False)

        def do_GET(self) -> None:  # noqa: N802
            self.answer(True)

        def do_POST(self) -> None:  # noqa: N802
            self.take()

        def do_PUT(self) -> None:  # noqa: N802
            self.take()

        def take(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            state.asked.append((self.command, self.path, None))
            if state.answers:
                self.send_error(state.answers.pop(0))
                return
            status, headers, content = state.takes(self.path, self.headers, body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.send_headers(headers)
            self.end_headers()
            self.wfile.write(content)

        def answer(self, with_body: bool) -> None:
            wanted = self.headers.get("Range")
            state.asked.append((self.command, self.path, wanted))
            state.authorizations[self.path] = self.headers.get("Authorization")
            if state.answers:
                self.send_error(state.answers.pop(0))
                return
            redirect = state.redirects.get(self.path, state.redirect)
            if redirect is not None:
                self.send_response(302)
                self.send_header("Location", redirect)
                self.send_header("Content-Length", "0")
                self.send_headers(state.headers.get(self.path, {}))
                self.end_headers()
                return
            if self.path not in state.files:
                headers = state.not_found(self.path)
                self.send_response(int(headers.pop("status", "404")))
                self.send_header("Content-Length", "0")
                self.send_headers(headers)
                self.end_headers()
                return
            body, start = state.files[self.path], 0
            if wanted and state.ranges:
                start = int(wanted.removeprefix("bytes=").removesuffix("-")) + state.shift
                self.send_response(206)
                last = len(body) - 1
                self.send_header("Content-Range", f"bytes {start}-{last}/{len(body)}")
            else:
                self.send_response(200)
            if state.sized:
                self.send_header("Content-Length", str(len(body) - start))
            if self.path in state.etags:
                self.send_header("ETag", state.etags[self.path])
            self.send_headers(state.headers.get(self.path, {}))
            self.end_headers()
            if with_body:
                self.send_body(body[start:])

        def send_headers(self, headers: dict[str, str]) -> None:
            for name, value in headers.items():
                self.send_header(name, value)

        def send_body(self, body: bytes) -> None:
            end = state.cuts.pop(0) if state.cuts else len(body)
            try:
                for start in range(0, min(end, len(body)), 1 << 16):
                    time.sleep(1.0 if state.stall == start >> 16 else state.pause)
                    block = body[start : min(start + (1 << 16), end)]
                    self.wfile.write(block)
                    state.sent += len(block)
            except ConnectionError:  # the client was killed
                return
            if end < len(body):
                time.sleep(0.1)  # or what was sent is thrown away as well
                reset = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
                self.connection.close()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    state.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
