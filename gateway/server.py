"""The HTTP server that runs the application: uvicorn, with the gateway's own signals."""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
import threading
from collections.abc import Callable, Iterator

import uvicorn
from starlette.types import ASGIApp

from gateway.settings import Settings

#: Seconds that a reply may still take to be sent when its deadline has passed.
LAST_SECONDS = 5


class Server(uvicorn.Server):
    """Serves an application until SIGTERM or Ctrl-C, and answers then what it has accepted.

    Args:
        app: The application.
        settings: Where to listen, and the limits.
        reload: What SIGHUP calls; without it SIGHUP ends the process at once.
    """

    def __init__(
        self, app: ASGIApp, settings: Settings, reload: Callable[[], None] | None = None
    ) -> None:
        config = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,  # the gateway's own log has an id and no query
            server_header=False,
            timeout_graceful_shutdown=math.ceil(settings.deadline_seconds) + LAST_SECONDS,
        )
        super().__init__(config)
        self._reload = reload

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle the signals while the server runs; in the main thread only.

        Uvicorn's own way sends the signal again at the end, so that the process ends by it. Here
        a server that answered everything ends with status 0.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        if self._reload:
            loop.add_signal_handler(signal.SIGHUP, self._reload)
        yield
