"""Asynchronous client of TorchServe's REST endpoints: captions, workers, description, metrics.

`python -m scale.serve` answers the same ones on Ray Serve.

It is built on aiohttp, whose parser is compiled: a request of 76 kB took 3.1 ms of one core in the
gateway, and 8.2 ms with httpx (`python -m benchmarks.gateway` measures it).
"""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import aiohttp

from client import CaptionError, CaptionResult, ServerUnreachable
from client.description import describe
from client.results import bad_reply, read_reply
from gateway.captioning.backend import Backend
from gateway.captioning.backends import Backends
from gateway.errors import GatewayError, NotReady
from gateway.settings import Settings
from gateway.telemetry.record import outgoing_headers, span

#: Seconds to connect.
CONNECT_SECONDS = 5.0
#: Seconds to wait for an answer about the server itself.
STATE = aiohttp.ClientTimeout(total=10.0)
#: Seconds that an idle connection is kept. TorchServe keeps them longer.
KEEP_ALIVE_SECONDS = 5.0
#: Header that tells the handler when an answer is of no use any more, in seconds since 1970.
DEADLINE_HEADER = "X-Request-Deadline"
#: Seconds by which the clock may differ between two looks, for less than a step: it is slewed.
CLOCK_SECONDS = 1.0

Reply = TypeVar("Reply")
#: Reads a reply: its status, content type and bytes.
Read = Callable[[int, str, bytes], Reply]


@dataclasses.dataclass(frozen=True)
class State:
    """What TorchServe says of itself.

    Attributes:
        ready_workers: Workers that are ready.
        waiting: Requests in its queue.
    """

    ready_workers: int
    waiting: int


@dataclasses.dataclass(frozen=True)
class Explained:
    """The handler's reply to a request for an explanation, which is passed on as it is.

    Attributes:
        content: JSON, or a PNG file.
        content_type: Which of them.
    """

    content: bytes
    content_type: str


class TorchServeClient:
    """A pool of connections to TorchServe.

    Args:
        settings: The addresses, the model's name and the number of connections.

    Attributes:
        backends: Where requests go. Each method asks the TorchServe that is the current one when
            it is called.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.backends = Backends(settings)
        self._session: aiohttp.ClientSession | None = None

    async def caption(
        self,
        picture: bytes,
        options: Mapping[str, str],
        seconds: float,
        backend: Backend | None = None,
    ) -> CaptionResult:
        """Caption one picture; waits without a limit.

        Args:
            picture: The bytes of a picture file.
            options: Names and values of options of the server.
            seconds: Until the answer is of no use any more. The handler does not begin to caption
                the picture after that.
            backend: The TorchServe to ask; None for the current one.

        Raises:
            ServerUnreachable: Nothing listens.
            CaptionError: TorchServe failed, the connection broke, or the clock was set so that the
                deadline was wrong; the picture may be sent again.
            GatewayError: The handler refused the picture or an option, or the server is overloaded.
        """
        return await self._ask(picture, options, seconds, _read_captions, backend)

    async def explain(
        self, picture: bytes, options: Mapping[str, str], seconds: float
    ) -> Explained:
        """Caption one picture and explain the caption; see `caption`.

        Args:
            picture: The bytes of a picture file.
            options: Those of the caption, and `explain`, `grid` and `format`.
            seconds: Until the answer is of no use any more.
        """
        return await self._ask(picture, options, seconds, _read_explanation)

    async def _ask(
        self,
        picture: bytes,
        options: Mapping[str, str],
        seconds: float,
        read: Read[Reply],
        to: Backend | None = None,
    ) -> Reply:
        # aiohttp writes a file in parts, and warns of more than 1 MB of bytes at once.
        data = picture if len(picture) < 1 << 20 else io.BytesIO(picture)
        with self.backends.using(to) as backend, span("torchserve"):
            headers = {DEADLINE_HEADER: f"{time.time() + seconds:.3f}", **outgoing_headers()}
            # This route passes a query on; TorchServe drops that of /predictions.
            url = f"{backend.inference}/models/{self._settings.model}/invoke"
            ahead = _clock_ahead()
            try:
                async with self._http.post(
                    url, data=data, params=dict(options), headers=headers
                ) as reply:
                    content = await reply.read()
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
                raise ServerUnreachable(backend.inference, str(error)) from None
            except aiohttp.ClientError as error:
                raise CaptionError(0, "connection_lost", type(error).__name__) from None
        try:
            result = read(reply.status, reply.content_type, content)
        except CaptionError as error:
            # Of TorchServe itself, or of Ray Serve ("Internal Server Error", without an error
            # object) whose replica has ended; the handler's own errors have other codes.
            if error.code in ("server_error", "bad_reply") and reply.status >= 500:
                raise
            # The deadline is a time of the clock, because that is all that the handler shares with
            # us. A clock that was set forward meanwhile has made it pass too early.
            if error.code == "deadline" and abs(_clock_ahead() - ahead) > CLOCK_SECONDS:
                raise CaptionError(0, "clock_set", "the clock was set meanwhile") from None
            pause = reply.headers.get("Retry-After", "")
            raise GatewayError.of(error, int(pause) if pause.isdecimal() else None) from None
        backend.captioned = time.monotonic()
        return result

    async def description(self) -> dict[str, Any]:
        """The description of the captioner: model, options, limits, formats.

        Raises:
            NotReady: The server does not answer, or has no worker that is ready.
            GatewayError: It has no such model.
        """
        try:
            with self.backends.using() as backend:
                return await asyncio.to_thread(
                    describe,
                    backend.management,
                    self._settings.model,
                    self._settings.deadline_seconds,  # a worker answers between two batches
                )
        except CaptionError as error:
            if error.code == "model_not_found":
                raise GatewayError.of(error) from None
            raise NotReady() from None

    async def has_ready_worker(self) -> bool:
        """Whether TorchServe answers and one of its workers is ready."""
        state = await self.state()
        return state is not None and state.ready_workers > 0

    async def state(self) -> State | None:
        """How many workers are ready and how many requests wait; None if TorchServe says nothing.

        A queue that is full answers 503 by itself: the handler never sees those requests.
        """
        model = f"{self.backends.current.management}/models/{self._settings.model}"
        try:
            async with self._http.get(model, timeout=STATE) as reply:
                found = json.loads(await reply.read())[0]
            ready = sum(worker["status"] == "READY" for worker in found["workers"])
            return State(ready, int(found["jobQueueStatus"]["pendingRequests"]))
        except (aiohttp.ClientError, TimeoutError, ValueError, LookupError, TypeError):
            return None

    async def metrics(self, backend: Backend) -> bytes | None:
        """The metrics of one TorchServe in Prometheus' text format; None if it does not answer."""
        address = f"{backend.metrics}/metrics"
        try:
            async with self._http.get(address, timeout=STATE) as reply:
                return await reply.read() if reply.status == 200 else None
        except (aiohttp.ClientError, TimeoutError):
            return None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    @property
    def _http(self) -> aiohttp.ClientSession:
        """The connections, made by the first request: aiohttp needs the running event loop."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=self._settings.max_at_once + 8,  # the others are for state and metrics
                    keepalive_timeout=KEEP_ALIVE_SECONDS,
                ),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,  # no proxy of the environment: the addresses are the server's own
            )
        return self._session


def _read_captions(status: int, _: str, content: bytes) -> CaptionResult:
    return read_reply(status, content)


def _read_explanation(status: int, content_type: str, content: bytes) -> Explained:
    if status == 200:
        return Explained(content, content_type)
    read_reply(status, content)  # raises the error that the handler reports
    raise bad_reply(status, content)


def _clock_ahead() -> float:
    """Seconds that the clock is ahead of the monotonic one; it changes when the clock is set."""
    return time.time() - time.monotonic()
