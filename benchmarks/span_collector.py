"""Takes the spans of OpenTelemetry and does nothing with them, with as little work as possible.

`python -m benchmarks.span_collector` listens on a free port of this machine and prints it. Messages
are sent with POST, as OTLP over HTTP does; GET tells how many bytes have come.
"""

from __future__ import annotations

import asyncio
import contextlib
import re

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


async def collect() -> None:
    """Take messages until the process is ended."""
    received = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = _LENGTH.search(head)
                body = await reader.readexactly(int(length[1])) if length else b""
                received += len(body)
                text = b"" if body else str(received).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text) + text)

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(collect())
