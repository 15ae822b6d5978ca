"""The client for programs of asyncio: the options, errors and retries of `CaptionClient`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Protocol, TypeVar

from client.base import JOBS, BaseClient, Picture, read_picture
from client.errors import CaptionError, UnreadableFile
from client.feedback import Feedback, feedback_fields
from client.in_order import in_order_async
from client.options import Option
from client.results import CaptionResult

P = TypeVar("P", bound=Picture)
R = TypeVar("R")


class AsyncTransport(Protocol):
    """A way to send one picture and get its captions."""

    async def send(self, picture: bytes, options: Mapping[str, str]) -> CaptionResult:
        """Caption one picture; raises `CaptionError`."""

    async def give_feedback(self, fields: Mapping[str, str], picture: bytes | None) -> Feedback:
        """Say something of a caption; raises `CaptionError`."""

    async def close(self) -> None:
        """Close connections."""


class AsyncCaptionClient(BaseClient[AsyncTransport]):
    """Captions pictures with a running captioner, within one event loop.

    Its arguments are those of `BaseClient`.
    """

    def _over_http(self) -> AsyncTransport:
        from client.rest import AsyncRestTransport

        return AsyncRestTransport(self.address, self.model, self.timeout, self._access)

    def _over_grpc(self, target: str) -> AsyncTransport:
        from client.rpc import AsyncGrpcTransport

        tls = self.address.startswith("grpcs:")
        return AsyncGrpcTransport(target, self.model, self.timeout, self._access, tls=tls)

    async def caption(self, picture: Picture, /, **options: float | str) -> CaptionResult:
        """Caption one picture; as `CaptionClient.caption`."""
        texts = self._texts(options)
        return await self._send(await asyncio.to_thread(read_picture, picture), texts)

    async def caption_many(
        self, pictures: Iterable[P], /, *, jobs: int = JOBS, **options: float | str
    ) -> AsyncIterator[tuple[P, CaptionResult | CaptionError]]:
        """Caption many pictures, several at a time, in their order.

        As `CaptionClient.caption_many`; what that raises is raised here at the first step.
        """
        if options:
            await asyncio.to_thread(self._try_to_describe)
        work = partial(self._outcome, self._texts(options))
        outcomes = in_order_async(work, pictures, jobs)
        try:
            async for picture, outcome in outcomes:
                yield picture, outcome
        finally:
            await outcomes.aclose()

    async def feedback(
        self,
        of: CaptionResult | str,
        /,
        *,
        thumbs: str | None = None,
        correction: str | None = None,
        picture: Picture | None = None,
        caption_index: int = 0,
        picture_index: int = 0,
    ) -> Feedback:
        """Say something of a caption that a gateway gave; as `CaptionClient.feedback`."""
        fields = feedback_fields(of, picture_index, caption_index, thumbs, correction)
        file = None if picture is None else await asyncio.to_thread(read_picture, picture)
        return await self._until_answered(lambda: self._transport.give_feedback(fields, file))

    async def options(self) -> dict[str, Option]:
        """The options of the server; as `CaptionClient.options`."""
        return await asyncio.to_thread(self._options)

    async def description(self) -> dict[str, Any]:
        """What the server says of its model; as `CaptionClient.description`."""
        return await asyncio.to_thread(self._describe)

    async def close(self) -> None:
        """Close connections."""
        await self._transport.close()

    async def _send(self, data: bytes, texts: Mapping[str, str]) -> CaptionResult:
        return await self._until_answered(lambda: self._transport.send(data, texts))

    async def _until_answered(self, send: Callable[[], Awaitable[R]]) -> R:
        """Send a request, and again as `Retries` says."""
        attempts = self._retries.begin()
        while True:
            try:
                result = await send()
            except CaptionError as error:
                await asyncio.sleep(attempts.pause(error))
            else:
                self._retries.answered = True
                return result

    async def _outcome(
        self, texts: Mapping[str, str], picture: Picture
    ) -> CaptionResult | CaptionError:
        try:
            data = await asyncio.to_thread(read_picture, picture)
            return await self._send(data, texts)
        except CaptionError as error:
            return error
        except OSError as error:
            return UnreadableFile(error)

    async def __aenter__(self) -> AsyncCaptionClient:
        """Use as an asynchronous context manager: closes at the end."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close connections."""
        await self.close()
