"""One connection: uvicorn's HTTP/1.1, with the limits on time and size that it does not have.

Uvicorn waits without end for the head of a request, because its only timer is for connections that
have had an answer, and every byte resets it. Here a connection that is not being answered has one
timer, which no byte resets. While a request is answered, `gateway/access/bodies.py` limits how long
its body may take, and the deadline how long its captions take.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from gateway.errors import GatewayError
from gateway.measures import Measures
from gateway.settings import Settings

#: Most bytes of the head of a request; h11 refuses a larger one, and as large a line of a chunk.
MAX_HEAD_BYTES = 16 << 10
#: Seconds in which a client must take the rest of an answer when its connection is closed.
LINGER_SECONDS = 5.0
#: Seconds for which a connection without a request stays open when the server stops: a request may
#: be on its way.
LAST_REQUEST_SECONDS = 0.5


class Connection(H11Protocol):
    """One connection from its first byte, after the handshake of TLS, to its end.

    Args:
        config: Of the server.
        state: Of the server; shared by all connections.
        app_state: What the application keeps for all requests.
        settings: Limits.
        measures: Counts connections that are refused.
        is_stopping: Whether the server answers what it has accepted and ends.
        ended: Called when the connection has ended.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        state: ServerState,
        app_state: dict[str, Any],
        settings: Settings,
        measures: Measures,
        is_stopping: Callable[[], bool],
        ended: Callable[[], None],
    ) -> None:
        super().__init__(config, state, app_state)
        self._settings = settings
        self._measures = measures
        self._is_stopping = is_stopping
        self._ended = ended
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None
        self._begun = False  # whether bytes of a head came since the last answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request."""
        super().connection_made(cast(asyncio.Transport, transport))
        self._await_head()
        if self._is_stopping():
            self.shutdown()

    def data_received(self, data: bytes) -> None:
        """Take bytes; the timer goes on unless they complete the head of a request."""
        if self.transport.is_closing():
            return
        self._begun = True
        super().data_received(data)
        if self._is_answering():
            _cancel(self._timer)
            if self._is_stopping():
                self.cycle.keep_alive = False

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the client to take the rest of the last answer."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._close_within(LINGER_SECONDS)
        elif not self._is_answering():
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers."""
        super().connection_lost(exc)
        for timer in (self._timer, self._writing, self.timeout_keep_alive_task):
            _cancel(timer)
        self._ended()

    def shutdown(self) -> None:
        """Close the connection after the answer that it waits for, or soon if it waits for none."""
        if self._is_answering():
            self.cycle.keep_alive = False
        else:
            self._start_timer(LAST_REQUEST_SECONDS, self._close)

    def pause_writing(self) -> None:
        """Give the client as long to take what waits for it as it has to send a request."""
        super().pause_writing()
        seconds = self._settings.body_seconds
        self._writing = self.loop.call_later(seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on with the answer."""
        _cancel(self._writing)
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Refuse a head that is not HTTP or too large; uvicorn calls it where h11 has raised.

        Args:
            msg: Uvicorn's, which does not tell the two apart.
        """
        if getattr(sys.exception(), "error_status_hint", 400) == 431:
            self._refuse(
                GatewayError(
                    431,
                    "head_too_large",
                    f"the head of the request is larger than {MAX_HEAD_BYTES} bytes; send fewer or "
                    "shorter headers, and the picture in the body",
                )
            )
        else:
            self._refuse(GatewayError(400, "bad_http", "the request is not valid HTTP/1.1"))

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _await_head(self) -> None:
        self._begun = False
        self._start_timer(self._settings.head_seconds, self._head_is_late)

    def _head_is_late(self) -> None:
        if self._begun:
            seconds = f"{self._settings.head_seconds:g} s"
            message = f"the head of the request was not sent within {seconds}"
            self._refuse(GatewayError(408, "too_slow", message))
        else:
            self._close()

    def _refuse(self, error: GatewayError) -> None:
        """Send an error and close; only close if an answer has begun already."""
        if not (self._is_answering() and self.cycle.response_started):
            self.transport.write(raw_response(error))
        if self._is_answering():  # the application gets nothing more, and what it sends is dropped
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._measures.connections_refused.labels(error.code).inc()
        self._close()

    def _close(self) -> None:
        self.transport.close()
        self._close_within(LINGER_SECONDS)

    def _close_within(self, seconds: float) -> None:
        """End a connection that closes, even if the client never takes what is left for it."""
        self._start_timer(seconds, self.transport.abort)

    def _start_timer(self, seconds: float, call: Callable[[], None]) -> None:
        _cancel(self._timer)
        self._timer = self.loop.call_later(seconds, call)


def raw_response(error: GatewayError) -> bytes:
    """An error as the bytes of an HTTP response, for a request that the application never gets."""
    body = json.dumps({"error": error.to_dict()}).encode()
    lines = [
        f"HTTP/1.1 {error.status_code} Refused",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *(f"{name}: {value}" for name, value in (error.headers or {}).items()),
    ]
    return "\r\n".join([*lines, "\r\n"]).encode() + body


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
