"""Copies of pictures for a candidate: its captions are compared with those that users got.

A copy is made when the user's caption is there already. It waits in a queue of its own, and its
bytes are counted beside those of requests. If the candidate is slower than the requests, or there
is no room, copies are dropped and counted; no request waits or fails for them.
"""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import logging
import time
from collections import deque
from collections.abc import Mapping

from client import CaptionError, CaptionResult
from gateway.access.bodies import Bodies
from gateway.captioning.torchserve import TorchServeClient
from gateway.captioning.trial import CANDIDATE, Trial
from gateway.captioning.version_measures import VersionMeasures
from gateway.errors import GatewayError

logger = logging.getLogger(__name__)

#: Copies that are in the candidate's TorchServe at a time, so that it can make batches.
AT_ONCE = 4
#: Copies that wait; more are dropped.
WAITING = 32


@dataclasses.dataclass(frozen=True)
class _Copy:
    trial: Trial
    picture: bytes
    options: Mapping[str, str]
    stable: CaptionResult


class Shadow:
    """The copies that wait, and those that the candidate is asked about.

    Args:
        torchserve: The client.
        measures: What is counted.
        bodies: The memory that they share with requests.
        seconds: How long the candidate may take for one.
    """

    def __init__(
        self,
        torchserve: TorchServeClient,
        measures: VersionMeasures,
        bodies: Bodies,
        seconds: float,
    ) -> None:
        self._torchserve = torchserve
        self._measures = measures
        self._bodies = bodies
        self._seconds = seconds
        self._waiting: deque[_Copy] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    def offer(
        self, trial: Trial, picture: bytes, options: Mapping[str, str], stable: CaptionResult
    ) -> None:
        """Take a copy, or drop it; returns at once.

        Args:
            trial: Whose candidate gets it.
            picture: The bytes of a picture file.
            options: Those of the request.
            stable: What the user got.
        """
        if len(self._waiting) >= WAITING:
            self._measures.shadow.labels("slow").inc()
            return
        if not self._bodies.take_copy(len(picture)):
            self._measures.shadow.labels("memory").inc()
            return
        self._waiting.append(_Copy(trial, picture, options, stable))
        self._show_bytes()
        if len(self._tasks) < AT_ONCE:
            # Not in the context of the request: it has its answer, and other copies follow.
            task = asyncio.create_task(self._work(), context=contextvars.Context())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Drop what waits, and leave what the candidate is asked about."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self) -> None:
        while self._waiting:
            copy = self._waiting.popleft()
            try:
                await self._compare(copy)
            finally:
                self._bodies.give_copy_back(len(copy.picture))
                self._show_bytes()

    async def _compare(self, copy: _Copy) -> None:
        """Ask the candidate, and compare."""
        trial, measures = copy.trial, self._measures
        if self._torchserve.backends.trial is not trial or trial.stopped:
            measures.shadow.labels("ended").inc()
            return
        begin = time.monotonic()
        try:
            async with asyncio.timeout(self._seconds):
                result = await self._torchserve.caption(
                    copy.picture, copy.options, self._seconds, trial.backend
                )
        except (CaptionError, GatewayError, TimeoutError) as error:
            if self._torchserve.backends.trial is not trial:
                return  # its figures have begun anew
            measures.failed(CANDIDATE)
            measures.shadow.labels("failed").inc()
            logger.warning("candidate %s: a copy failed: %r", trial.backend.inference, error)
            trial.note(failed=True)
            return
        if self._torchserve.backends.trial is trial:
            measures.captioned(CANDIDATE, result, time.monotonic() - begin)
            measures.compared(copy.stable, result)
            trial.note(failed=False)

    def _show_bytes(self) -> None:
        self._measures.shadow_bytes.set(self._bodies.copies)
