"""Captions the pictures of a request: their turn, a deadline, and one more try."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from client import CaptionError, CaptionResult, ServerUnreachable
from gateway.access.bodies import Bodies
from gateway.access.callers import CALLER, Caller, Rates
from gateway.captioning.deadly import DeadlyPictures, worker_failed
from gateway.captioning.fair_queue import FairQueue
from gateway.captioning.torchserve import Explained, Reply, TorchServeClient
from gateway.captioning.trial import Trial
from gateway.captioning.two_captioners import TwoCaptioners
from gateway.errors import GatewayError, NotReady
from gateway.feedback.recorder import Recorder
from gateway.measures import Measures
from gateway.pictures.fetching import Fetcher
from gateway.pictures.reading import Picture
from gateway.settings import PREFIX, Settings
from gateway.telemetry.record import RECORD, span

#: Seconds between two tries to reach a TorchServe that does not listen, or lost the connection.
RECONNECT_SECONDS = 0.25
#: Seconds for which a caption shows that the captioner works.
FRESH_SECONDS = 60.0
#: Seconds that the caption of the sample may take.
SAMPLE_SECONDS = 20.0
#: Weight of the newest duration in the moving average.
NEWEST = 0.1
#: A red PNG of 4x4 pixels.
SAMPLE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAQAAAAECAIAAAAmkwkpAAAAEElEQVR4nGP8z4AATAxEcQAz0QEHOoQ+uAAAAABJRU5E"
    "rkJggg=="
)

#: Pictures that an explanation counts as, where the pictures of a client are limited: with the
#: usual grid it takes as long as this many captions, each of which is captioned alone.
EXPLANATION_PICTURES = 40

#: Longest `timeout_ms` of a request. The gateway's own deadline is usually shorter.
LONGEST_TIMEOUT = 600_000
#: A caption, or why there is none.
Outcome = CaptionResult | GatewayError
#: Asks TorchServe about a picture: its bytes, the options, and seconds until the deadline.
Ask = Callable[[bytes, Mapping[str, str], float], Awaitable[Reply]]


class Captioner:
    """Sends pictures to TorchServe, which makes batches of those that come together.

    Args:
        torchserve: The client.
        settings: Limits and deadlines.
        measures: What is counted.
        fetcher: Fetches pictures by URL; None if they are refused.
        bodies: The memory of requests.
        recorder: Notes what was answered, so that it can be rated; None if no feedback is taken.
    """

    def __init__(
        self,
        torchserve: TorchServeClient,
        settings: Settings,
        measures: Measures,
        fetcher: Fetcher | None,
        bodies: Bodies,
        recorder: Recorder | None = None,
    ) -> None:
        self._torchserve = torchserve
        self._settings = settings
        self._measures = measures
        self._fetcher = fetcher
        self._recorder = recorder
        self._queue = FairQueue(settings.max_in_flight, settings.max_at_once)
        self._rates = Rates(settings.burst)
        self._deadly = DeadlyPictures()
        self._two = TwoCaptioners(torchserve, settings, measures.versions, bodies)
        self._average = 1.0  # seconds that a picture waits for its caption
        self._describing = asyncio.Lock()
        self._sampling = asyncio.Lock()
        measures.in_flight.set_function(lambda: self._queue.held)
        measures.waiting.set_function(lambda: self._queue.waiting)

    def overload(self, client: str) -> GatewayError | None:
        """Why a client cannot send even one picture now; None if it can.

        Args:
            client: The name of its key, or its address.
        """
        return self._queue.refusal(client, 1, self._average)

    async def description(self) -> dict[str, Any]:
        """The description of the captioner: options and limits.

        It is asked for once, and again after TorchServe has started again.

        Raises:
            GatewayError: The server cannot be asked before the deadline of the request.
        """
        if (known := self._torchserve.backends.current.description) is not None:
            return known
        try:
            async with asyncio.timeout_at(CALLER.get().deadline):
                return await self._describe()
        except TimeoutError:
            raise NotReady() from None

    async def _describe(self) -> dict[str, Any]:
        patience = time.monotonic() + self._settings.restart_seconds
        async with self._describing:  # one request asks for all that wait
            # Kept with the TorchServe that gave it: another may be the current one meanwhile.
            while (backend := self._torchserve.backends.current).description is None:
                try:
                    backend.description = await self._torchserve.description()
                except NotReady:
                    if time.monotonic() > patience:
                        raise
                    await asyncio.sleep(RECONNECT_SECONDS)
            return backend.description

    async def caption(
        self, pictures: Sequence[Picture], options: Mapping[str, str]
    ) -> list[Outcome]:
        """Caption the pictures of the request that is served now, all at the same time.

        Args:
            pictures: The bytes of each picture file, or its URL.
            options: For all of them.

        Returns:
            For each picture its captions or its error.

        Raises:
            GatewayError: There is no picture, there are too many for a request, too many wait, or
                the client has sent too many lately, or there is a URL and none is fetched.
        """
        if not pictures:
            raise GatewayError(400, "no_image", "the request holds no picture")
        self._check_urls(pictures)
        limit = (await self.description())["max_pictures"]
        if len(pictures) > limit:
            raise GatewayError(
                413,
                "too_many_images",
                f"the request holds {len(pictures)} pictures; the limit is {limit}; "
                "send several requests",
            )
        _note_pictures(len(pictures))
        caller, options = _with_time_limit(CALLER.get(), options)
        with self._queue.hold(caller.name, len(pictures), self._average):
            self._rates.take(caller, len(pictures))
            trial = self._two.choose(caller)
            if len(pictures) == 1:
                return [await self._captioned(caller, 0, pictures[0], options, trial)]
            return await asyncio.gather(
                *(
                    self._captioned(caller, index, each, options, trial)
                    for index, each in enumerate(pictures)
                )
            )

    async def explain(self, picture: Picture, options: Mapping[str, str]) -> Explained:
        """Caption the picture of the request that is served now, and explain its caption.

        Args:
            picture: The bytes of a picture file, or its URL.
            options: Those of the caption, and `explain`, `grid` and `format`.

        Raises:
            GatewayError: It has no explanation, or `caption` would raise it.
        """
        self._check_urls([picture])
        _note_pictures(1)
        caller, options = _with_time_limit(CALLER.get(), options)
        with self._queue.hold(caller.name, 1, self._average):
            self._rates.take(caller, EXPLANATION_PICTURES)
            ask = self._torchserve.explain
            outcome = await self._outcome(caller, picture, options, ask, "explained")
        if isinstance(outcome, GatewayError):
            raise outcome
        return outcome

    async def close(self) -> None:
        """End what is done beside requests."""
        await self._two.close()

    async def is_ready(self) -> bool:
        """Whether a worker is ready and a caption came within the last minute.

        If there was no request in that time, a sample is captioned.
        """
        if not await self._torchserve.has_ready_worker():
            return False
        try:
            # One sample at a time: this question needs no key, and many may ask it at once.
            async with asyncio.timeout(SAMPLE_SECONDS), self._sampling:
                if time.monotonic() - self._torchserve.backends.current.captioned >= FRESH_SECONDS:
                    end = asyncio.get_running_loop().time() + SAMPLE_SECONDS
                    await self._send(SAMPLE, {}, end, self._torchserve.caption)
        except (TimeoutError, CaptionError, GatewayError):
            return False
        return True

    def _check_urls(self, pictures: Sequence[Picture]) -> None:
        """Refuse URLs where none is fetched."""
        if self._fetcher is None and any(isinstance(each, str) for each in pictures):
            raise GatewayError(
                400,
                "no_urls",
                "the request holds a URL; pictures by URL are not fetched, because "
                f"{PREFIX}FETCH_URLS is false; send the bytes",
            )

    async def _captioned(
        self,
        caller: Caller,
        index: int,
        picture: Picture,
        options: Mapping[str, str],
        trial: Trial | None,
    ) -> Outcome:
        """The captions of one picture of a request, or its error."""
        begin = time.monotonic()
        ask_one = self._two.asker(caller, trial)
        sent = b""  # of a picture by URL, what was fetched

        async def ask(content: bytes, options: Mapping[str, str], seconds: float) -> CaptionResult:
            nonlocal sent
            sent = content
            return await ask_one(content, options, seconds)

        outcome = await self._outcome(caller, picture, options, ask, "captioned")
        if not isinstance(outcome, GatewayError):
            if record := RECORD.get():
                record.model_version = outcome.version
            self._average += NEWEST * (time.monotonic() - begin - self._average)
            if self._recorder is not None:
                await self._recorder.record(caller, index, outcome, sent)
        return outcome

    async def _outcome(
        self,
        caller: Caller,
        picture: Picture,
        options: Mapping[str, str],
        ask: Ask[Reply],
        success: str,
    ) -> Reply | GatewayError:
        """The reply about one picture, or its error.

        Args:
            caller: Whose request it is.
            picture: The bytes of a picture file, or its URL.
            options: Names and values.
            ask: Asks TorchServe.
            success: What a reply is counted as.
        """
        is_fetched = isinstance(picture, str)
        outcome: Reply | GatewayError
        try:
            if isinstance(picture, GatewayError):
                raise picture
            async with asyncio.timeout_at(caller.deadline):
                if isinstance(picture, str):
                    assert self._fetcher is not None  # `caption` refused it otherwise
                    async with contextlib.AsyncExitStack() as stack:
                        with span("fetch"):
                            fetched = await stack.enter_async_context(
                                self._fetcher.fetched(picture)
                            )
                        outcome = await self._send_twice(caller, fetched, options, ask)
                else:
                    outcome = await self._send_twice(caller, picture, options, ask)
        except TimeoutError:
            outcome = GatewayError(
                504,
                "deadline",
                f"the captioner gave no answer within {caller.seconds:g} s; ask for fewer beams or "
                "tokens, or try again later",
            )
        except GatewayError as error:
            outcome = error
            if is_fetched and error.code == "image_undecodable":
                # The handler's message shows the first bytes, which may be those of an inner page.
                message = "the URL gives no picture that can be decoded; open it in a browser"
                outcome = GatewayError(error.status_code, error.code, message)
        code = outcome.code if isinstance(outcome, GatewayError) else success
        self._measures.pictures.labels(code).inc()
        return outcome

    async def _send_twice(
        self, caller: Caller, picture: bytes, options: Mapping[str, str], ask: Ask[Reply]
    ) -> Reply:
        """Send a picture, and once more if the worker ended or the connection broke.

        When a picture ends the worker, the other pictures of its batch fail too. So second tries
        are then made one at a time, with nothing else in TorchServe: only the picture that ends
        the worker fails again, and the worker ends twice. To halve the batch until the picture is
        found would end the worker once for each halving.
        """
        check_picture(picture, self._settings.max_picture_bytes)
        self._deadly.check(picture, options)
        with span("queue"):
            await self._queue.enter(caller.name)
        try:
            return await self._send_in_place(picture, options, caller.deadline, ask)
        except CaptionError as error:
            self._measures.resent.inc()
            connection_lost = error.status == 0  # TorchServe ended, closed it, or the clock was set
        if connection_lost:
            # A TorchServe that ends closes its connections one after the other: a second try at
            # once would take another one that is just ending.
            await asyncio.sleep(RECONNECT_SECONDS)
            with span("queue"):
                await self._queue.enter(caller.name)
        else:
            with span("queue"):
                await self._queue.enter_alone()
        try:
            return await self._send_in_place(picture, options, caller.deadline, ask)
        except CaptionError as error:
            if error.status == 0:
                raise GatewayError.of(error) from None
            self._deadly.add(picture, options)
            raise worker_failed() from None

    async def _send_in_place(
        self, picture: bytes, options: Mapping[str, str], deadline: float, ask: Ask[Reply]
    ) -> Reply:
        """Send a picture that has a place in TorchServe, and give the place back.

        The place is kept until TorchServe has answered, even if the client leaves: TorchServe
        cannot be told to give up.
        """

        async def send() -> Reply:
            async with asyncio.timeout_at(deadline):
                return await self._send(picture, options, deadline, ask)

        def leave(task: asyncio.Task[Reply]) -> None:
            self._queue.leave()
            if not task.cancelled():
                task.exception()  # nobody may be left to ask for it

        sending = asyncio.create_task(send())
        sending.add_done_callback(leave)
        return await asyncio.shield(sending)

    async def _send(
        self, picture: bytes, options: Mapping[str, str], deadline: float, ask: Ask[Reply]
    ) -> Reply:
        """Send a picture; waits some seconds for a TorchServe that does not listen.

        Args:
            picture: The bytes of its file.
            options: Names and values.
            deadline: On the clock of the event loop.
            ask: Asks TorchServe.
        """
        loop = asyncio.get_running_loop()
        patience = loop.time() + self._settings.restart_seconds
        while True:
            backend = self._torchserve.backends.current
            try:
                seconds = deadline - loop.time()
                return await ask(picture, options, seconds)
            except ServerUnreachable as error:
                backend.description = None  # another archive may be served after a restart
                if loop.time() > patience:
                    raise GatewayError.of(error) from None
                await asyncio.sleep(RECONNECT_SECONDS)
            except CaptionError:
                backend.description = None
                raise


def _note_pictures(count: int) -> None:
    """Note for the log how many pictures the request that is served now holds."""
    if record := RECORD.get():
        record.pictures = count


def _with_time_limit(
    caller: Caller, options: Mapping[str, str]
) -> tuple[Caller, Mapping[str, str]]:
    """A caller with the deadline of the request's own `timeout_ms`, and the other options.

    Raises:
        GatewayError: It is no whole number, or below 1.
    """
    if (text := options.get("timeout_ms")) is None:
        return caller, options
    if not text.isdecimal() or not 0 < int(text[:10]) <= LONGEST_TIMEOUT or len(text) > 10:
        raise GatewayError(
            422,
            "bad_option",
            f"option timeout_ms is {text[:40]!r}; it must be a whole number of milliseconds from 1 "
            f"to {LONGEST_TIMEOUT}",
        )
    seconds = int(text) / 1000
    others = {name: value for name, value in options.items() if name != "timeout_ms"}
    if caller.seconds <= seconds:
        return caller, others
    # The time counts from when the request came.
    deadline = caller.deadline - caller.seconds + seconds
    return dataclasses.replace(caller, deadline=deadline, seconds=seconds), others


def check_picture(picture: bytes, limit: int) -> None:
    """Refuse a picture that TorchServe is not asked about.

    Args:
        picture: The bytes of its file.
        limit: Most bytes of one.

    Raises:
        GatewayError: It is empty, too large, or JSON.
    """
    if not picture:
        raise GatewayError(400, "empty", "the picture is empty: it has 0 bytes")
    if len(picture) > limit:
        raise GatewayError(
            413,
            "request_too_large",
            f"the picture has {len(picture)} bytes; the limit is {limit}; send a smaller version",
        )
    # TorchServe's handler would take it for a request in JSON, and answer in another form.
    if picture[:64].lstrip().startswith((b"{", b"[")):
        raise GatewayError(
            400, "image_undecodable", "the picture is JSON text; send the bytes of an image file"
        )
