"""Accepts connections: as many as allowed, with TLS if there is a certificate.

Uvicorn has no limit on connections that send nothing, and does not know those in the handshake of
TLS at all. So they are accepted and counted here, and handed to it afterwards.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import resource
import socket
import ssl
from collections.abc import Callable

from gateway.errors import GatewayError
from gateway.listening.connection import raw_response
from gateway.measures import Measures
from gateway.settings import PREFIX, Settings, SettingsError

logger = logging.getLogger(__name__)

#: Connections that the system keeps until they are accepted.
BACKLOG = 2048
#: Seconds until the next try when the system has no more files or memory for a connection.
PAUSE_SECONDS = 0.5
#: Most connections that get an answer although there are too many; others are just closed.
MOST_REFUSED = 100
#: Seconds for which one that gets an answer stays open, so that the answer is read.
REFUSED_SECONDS = 1.0
#: Open files of the process beside connections of clients and to TorchServe.
OTHER_FILES = 100


def bind(settings: Settings) -> list[socket.socket]:
    """Listen on the address of the settings, which may stand for several.

    Raises:
        SettingsError: Nothing can listen there, or the process may not open as many files as
            connections are allowed.
    """
    _allow_files(settings.max_connections + settings.max_at_once + OTHER_FILES)
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, kind, protocol, _, address in dict.fromkeys(found):
            listening = socket.socket(family, kind, protocol)
            sockets.append(listening)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.bind(address)
            listening.listen(BACKLOG)
            listening.setblocking(False)
    except OSError as error:
        for each in sockets:
            each.close()
        where = f"{settings.host}, port {settings.port}"
        raise SettingsError(f"nothing can listen on {where}: {error}") from None
    return sockets


def _allow_files(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY != hard < wanted:
        raise SettingsError(
            f"{PREFIX}MAX_CONNECTIONS needs {wanted} open files, but this process may have {hard}; "
            "lower it, or raise the limit (ulimit -Hn)"
        )
    if resource.RLIM_INFINITY != soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Listener:
    """Accepts connections on sockets until it is closed.

    Args:
        sockets: Listening already.
        settings: Limits.
        measures: Shows how many connections there are, and counts those refused.
        protocol: Makes the protocol of a connection; it must call its argument when it ends.
        tls: What new connections are encrypted with; None for none.

    Attributes:
        tls: May be replaced; connections that are open keep what they have.
    """

    def __init__(
        self,
        sockets: list[socket.socket],
        settings: Settings,
        measures: Measures,
        protocol: Callable[[Callable[[], None]], asyncio.Protocol],
        tls: ssl.SSLContext | None,
    ) -> None:
        self.tls = tls
        self._sockets = sockets
        self._settings = settings
        self._measures = measures
        self._protocol = protocol
        self._open: set[object] = set()  # one object for each connection
        self._refused: set[socket.socket] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to accept."""
        for each in self._sockets:
            self._watch(each)

    def close(self) -> None:
        """Accept what has connected already, and no more; handshakes of TLS end."""
        for each in self._sockets:
            asyncio.get_running_loop().remove_reader(each)
            if not self.tls:
                self._accept(each)
            each.close()
        if self.tls:
            for task in self._tasks:
                task.cancel()

    def _watch(self, listening: socket.socket) -> None:
        if listening.fileno() >= 0:  # not closed meanwhile
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        """Take the connections that wait."""
        for _ in range(BACKLOG):
            try:
                connection, _ = listening.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:  # the client has left
                continue
            except OSError as error:  # no more files or memory, so that trying at once is of no use
                logger.error("a connection cannot be accepted: %s", error)
                loop = asyncio.get_running_loop()
                loop.remove_reader(listening)
                loop.call_later(PAUSE_SECONDS, self._watch, listening)
                return
            self._take(connection)

    def _take(self, connection: socket.socket) -> None:
        if len(self._open) < self._settings.max_connections:
            token = object()
            self._open.add(token)
            self._measures.connections.set(len(self._open))
            release = functools.partial(self._release, token)
            task = asyncio.get_running_loop().create_task(self._connect(connection, release))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self._refuse(connection)

    async def _connect(self, connection: socket.socket, release: Callable[[], None]) -> None:
        """Hand a connection to its protocol, after the handshake if TLS is spoken."""
        connection.setblocking(False)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self._protocol(release),
                connection,
                ssl=self.tls,
                ssl_handshake_timeout=self._settings.head_seconds if self.tls else None,
            )
        except OSError:  # no handshake: another protocol, too slow, or the client has left
            self._measures.connections_refused.labels("handshake").inc()
            release()
        except asyncio.CancelledError:
            release()
            raise

    def _release(self, token: object) -> None:
        self._open.discard(token)
        self._measures.connections.set(len(self._open))

    def _refuse(self, connection: socket.socket) -> None:
        """Answer with 503 and close; with TLS only close, which is the cheapest."""
        self._measures.connections_refused.labels("too_many").inc()
        try:
            if self.tls or len(self._refused) >= MOST_REFUSED:
                connection.close()
                return
            message = (
                f"{self._settings.max_connections} connections are open, which is the limit; "
                "connect again later"
            )
            connection.setblocking(False)
            connection.send(raw_response(GatewayError(503, "overloaded", message, 1)))
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            connection.close()
            return
        # A socket that is closed with bytes unread takes the answer away from the client.
        self._refused.add(connection)
        asyncio.get_running_loop().call_later(REFUSED_SECONDS, self._end_refused, connection)

    def _end_refused(self, connection: socket.socket) -> None:
        self._refused.discard(connection)
        connection.close()
