"""Captions the pictures of a request: a limit on what waits, a deadline, and one more try."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Mapping, Sequence
from typing import Any

from client import CaptionError, CaptionResult, ServerUnreachable
from gateway.errors import GatewayError, NotReady
from gateway.fetching import Fetcher
from gateway.measures import Measures
from gateway.pictures import Picture
from gateway.settings import PREFIX, Settings
from gateway.torchserve import TorchServeClient

#: Seconds between two tries to reach a TorchServe that does not listen.
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

#: A caption, or why there is none.
Outcome = CaptionResult | GatewayError


class Captioner:
    """Sends pictures to TorchServe, which makes batches of those that come together.

    Args:
        torchserve: The client.
        settings: Limits and deadlines.
        measures: What is counted.
        fetcher: Fetches pictures by URL; None if they are refused.
    """

    def __init__(
        self,
        torchserve: TorchServeClient,
        settings: Settings,
        measures: Measures,
        fetcher: Fetcher | None,
    ) -> None:
        self._torchserve = torchserve
        self._settings = settings
        self._measures = measures
        self._fetcher = fetcher
        self._in_flight = 0
        self._average = 1.0  # seconds that a picture waits for its caption
        self._captioned = -FRESH_SECONDS  # when the last caption came; time.monotonic
        self._description: dict[str, Any] | None = None
        self._describing = asyncio.Lock()
        self._second_tries = asyncio.Lock()
        self._sampling = asyncio.Lock()

    async def description(self) -> dict[str, Any]:
        """The description of the captioner: options and limits.

        It is asked for once, and again after TorchServe has started again.

        Raises:
            GatewayError: The server cannot be asked now.
        """
        try:
            async with asyncio.timeout(self._settings.deadline_seconds):
                return await self._describe()
        except TimeoutError:
            raise NotReady() from None

    async def _describe(self) -> dict[str, Any]:
        patience = time.monotonic() + self._settings.restart_seconds
        async with self._describing:  # one request asks for all that wait
            while self._description is None:
                try:
                    self._description = await self._torchserve.description()
                except NotReady:
                    if time.monotonic() > patience:
                        raise
                    await asyncio.sleep(RECONNECT_SECONDS)
            return self._description

    async def caption(
        self, pictures: Sequence[Picture], options: Mapping[str, str]
    ) -> list[Outcome]:
        """Caption the pictures of one request, all at the same time.

        Args:
            pictures: The bytes of each picture file, or its URL.
            options: For all of them.

        Returns:
            For each picture its captions or its error.

        Raises:
            GatewayError: There is no picture, there are too many for a request, too many wait, or
                there is a URL and none is fetched.
        """
        if not pictures:
            raise GatewayError(400, "no_image", "the request holds no picture")
        if self._fetcher is None and any(isinstance(each, str) for each in pictures):
            raise GatewayError(
                400,
                "no_urls",
                "the request holds a URL; pictures by URL are not fetched, because "
                f"{PREFIX}FETCH_URLS is false; send the bytes",
            )
        limit = (await self.description())["max_pictures"]
        if len(pictures) > limit:
            raise GatewayError(
                413,
                "too_many_images",
                f"the request holds {len(pictures)} pictures; the limit is {limit}; "
                "send several requests",
            )
        self._enter(len(pictures))
        try:
            return await asyncio.gather(*(self._outcome(each, options) for each in pictures))
        finally:
            self._enter(-len(pictures))

    async def is_ready(self) -> bool:
        """Whether a worker is ready and a caption came within the last minute.

        If there was no request in that time, a sample is captioned.
        """
        if not await self._torchserve.has_ready_worker():
            return False
        try:
            # One sample at a time: this question needs no key, and many may ask it at once.
            async with asyncio.timeout(SAMPLE_SECONDS), self._sampling:
                if time.monotonic() - self._captioned >= FRESH_SECONDS:
                    await self._send(SAMPLE, {})
        except (TimeoutError, CaptionError, GatewayError):
            return False
        return True

    def _enter(self, count: int) -> None:
        """Count pictures that begin to wait, or no longer wait if the count is negative."""
        limit = self._settings.max_in_flight
        if count > 0 and self._in_flight and self._in_flight + count > limit:
            raise GatewayError(
                503,
                "overloaded",
                f"{self._in_flight} pictures wait already; the limit is {limit}; send the request "
                "again later",
                self._average,
            )
        self._in_flight += count
        self._measures.in_flight.set(self._in_flight)

    async def _outcome(self, picture: Picture, options: Mapping[str, str]) -> Outcome:
        """The captions of one picture, or its error."""
        begin, is_fetched = time.monotonic(), isinstance(picture, str)
        outcome: Outcome
        try:
            async with asyncio.timeout(self._settings.deadline_seconds):
                if isinstance(picture, str):
                    assert self._fetcher is not None  # `caption` refused it otherwise
                    picture = await self._fetcher.fetch(picture)
                _check_size(picture, self._settings.max_picture_bytes)
                outcome = await self._send_twice(picture, options)
            self._average += NEWEST * (time.monotonic() - begin - self._average)
        except TimeoutError:
            outcome = GatewayError(
                504,
                "deadline",
                f"the captioner gave no answer within {self._settings.deadline_seconds:g} s; ask "
                "for fewer beams or tokens, or try again later",
            )
        except GatewayError as error:
            outcome = error
            if is_fetched and error.code == "image_undecodable":
                # The handler's message shows the first bytes, which may be those of an inner page.
                message = "the URL gives no picture that can be decoded; open it in a browser"
                outcome = GatewayError(error.status_code, error.code, message)
        code = outcome.code if isinstance(outcome, GatewayError) else "captioned"
        self._measures.pictures.labels(code).inc()
        return outcome

    async def _send_twice(self, picture: bytes, options: Mapping[str, str]) -> CaptionResult:
        """Send a picture, and once more if the worker ended or the connection broke.

        When a picture ends the worker, the other pictures of its batch fail too. So second tries
        go one at a time: then only the picture that ends the worker fails again.
        """
        try:
            return await self._send(picture, options)
        except CaptionError:
            self._measures.resent.inc()
        async with self._second_tries:
            try:
                return await self._send(picture, options)
            except CaptionError as error:
                if error.status == 0:
                    raise GatewayError.of(error) from None
                raise GatewayError(
                    500,
                    "worker_failed",
                    "the captioner's process ended twice while it captioned this picture; the "
                    "picture or its options may be the cause; report it if that is repeated",
                ) from None

    async def _send(self, picture: bytes, options: Mapping[str, str]) -> CaptionResult:
        """Send a picture; waits some seconds for a TorchServe that does not listen."""
        patience = time.monotonic() + self._settings.restart_seconds
        while True:
            try:
                result = await self._torchserve.caption(picture, options)
            except ServerUnreachable as error:
                self._description = None  # another archive may be served after a restart
                if time.monotonic() > patience:
                    raise GatewayError.of(error) from None
                await asyncio.sleep(RECONNECT_SECONDS)
            except CaptionError:
                self._description = None
                raise
            else:
                self._captioned = time.monotonic()
                return result


def _check_size(picture: bytes, limit: int) -> None:
    if not picture:
        raise GatewayError(400, "empty", "the picture is empty: it has 0 bytes")
    if len(picture) > limit:
        raise GatewayError(
            413,
            "request_too_large",
            f"the picture has {len(picture)} bytes; the limit is {limit}; send a smaller version",
        )
