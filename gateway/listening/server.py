"""The HTTP server that runs the application: uvicorn with h11, with connections of our own.

Measured 2026-11-29 on 2 cores, with an application that reads 30 kB and answers, 16 connections.
CPU time of a request: uvicorn with h11 0.41 ms, with httptools 0.16 ms, with httptools and uvloop
0.21 ms; granian 2.8 0.20 ms; hypercorn 0.18 0.89 ms. The whole gateway takes some milliseconds for
a request, and a caption takes tens. So other things decide:

- h11 limits every part of a request that a client can stretch: the head, lines between chunks, what
  follows the body. httptools, which would save 0.25 ms, limits none of them.
- granian speaks HTTP/2. But it leaves a connection open that never sends a byte, it did not end
  within 20 s of SIGTERM while connections were open, and it runs the application in a process of
  its own.
- hypercorn speaks HTTP/2. But it takes twice the time of h11, and its last release is a year old.
- uvicorn speaks HTTP/2 with zttp only, which calls itself alpha.

So HTTP/2 is left to a proxy, and the limits that uvicorn lacks are in `connection.py` and
`listener.py` beside this file.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator

import uvicorn
from starlette.types import ASGIApp
from uvicorn.config import STARTUP_FAILURE

from gateway.listening.connection import MAX_HEAD_BYTES, Connection
from gateway.listening.listener import Listener
from gateway.measures import Measures
from gateway.settings import Settings

logger = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """Serves an application until SIGTERM or Ctrl-C, and answers then what it has accepted.

    Args:
        app: The application.
        settings: Limits.
        measures: Shows connections.
        sockets: Listening already.
        tls: What connections are encrypted with; None for none.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        measures: Measures,
        sockets: list[socket.socket],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        config = uvicorn.Config(
            app,
            loop="asyncio",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,  # the gateway's own log has an id and no query
            server_header=False,
            timeout_keep_alive=math.ceil(settings.head_seconds),
            timeout_graceful_shutdown=math.ceil(settings.drain_seconds),
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        )
        super().__init__(config)
        self._settings = settings
        self._measures = measures
        self._listener = Listener(sockets, settings, measures, self._connection, tls)
        self._on_hangup: Callable[[], None] | None = None

    def on_hangup(self, call: Callable[[], None]) -> None:
        """Call something for SIGHUP; without it SIGHUP ends the process at once."""
        self._on_hangup = call

    def renew_certificate(self, tls: ssl.SSLContext) -> None:
        """Encrypt new connections with another certificate."""
        self._listener.tls = tls

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application and accept connections."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:  # its log has the cause
            sys.exit(STARTUP_FAILURE)
        self.servers = []  # uvicorn's own, of which there are none
        self._listener.start()
        self.started = True
        logger.info("the gateway listens at %s", self._settings.address)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more, answer what was accepted, and end the application."""
        logger.info("the gateway stops; it answers what it has accepted")
        self._listener.close()
        await super().shutdown()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle the signals while the server runs; in the main thread only.

        Uvicorn's own way sends the signal again at the end, so that the process ends by it. Here
        a server that has answered everything ends with status 0.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        if self._on_hangup:
            loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        yield

    def _connection(self, ended: Callable[[], None]) -> Connection:
        return Connection(
            self.config,
            self.server_state,
            self.lifespan.state,
            self._settings,
            self._measures,
            lambda: self.should_exit,
            ended,
        )
