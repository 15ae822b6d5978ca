"""Which of two captioners answers a request, and what happens when the one on trial fails.

A picture that the candidate does not caption is asked of the stable captioner, within the same
deadline. If that captions it, the candidate has failed: it refused or lost a picture that can be
captioned, or took longer than it may. If the stable one refuses the picture too, the picture is at
fault, and nothing is counted against the candidate.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping

from client import CaptionError, CaptionResult
from gateway.access.bodies import Bodies
from gateway.access.callers import CAPTIONER_HEADER, Caller
from gateway.captioning.shadow import Shadow
from gateway.captioning.torchserve import TorchServeClient
from gateway.captioning.trial import CANDIDATE, STABLE, Trial
from gateway.captioning.version_measures import VersionMeasures
from gateway.errors import GatewayError
from gateway.settings import Settings

logger = logging.getLogger(__name__)


class TwoCaptioners:
    """The stable captioner, and beside it perhaps a candidate.

    Args:
        torchserve: The client of both.
        settings: How long the candidate may take.
        measures: What is counted of both.
        bodies: The memory of requests, which copies of pictures are counted in.
    """

    def __init__(
        self,
        torchserve: TorchServeClient,
        settings: Settings,
        measures: VersionMeasures,
        bodies: Bodies,
    ) -> None:
        self._torchserve = torchserve
        self._settings = settings
        self._measures = measures
        self._shadow = Shadow(torchserve, measures, bodies, settings.deadline_seconds)
        torchserve.backends.on_change = measures.clear

    def choose(self, caller: Caller) -> Trial | None:
        """The trial whose candidate gets a request, or a copy of it; None if none does.

        Args:
            caller: Of the request.

        Raises:
            GatewayError: It names a captioner that there is not.
        """
        trial = self._torchserve.backends.trial
        if not caller.wanted:
            return trial if trial and trial.takes(caller.request_id) else None
        if caller.wanted not in (STABLE, CANDIDATE):
            raise GatewayError(
                400,
                "unknown_captioner",
                f"the header {CAPTIONER_HEADER} is {caller.wanted[:40]!r}; it must be {STABLE} or "
                f"{CANDIDATE}",
            )
        if caller.wanted == STABLE:
            return None
        if trial is None:
            raise GatewayError(
                400,
                "no_candidate",
                f"the header {CAPTIONER_HEADER} asks for the candidate, and none is tried out; "
                "leave it out",
            )
        return trial

    def asker(self, caller: Caller, trial: Trial | None) -> _Asker:
        """What asks about one picture of a request.

        Args:
            caller: Of the request.
            trial: As `choose` returned it for the request.
        """
        return _Asker(self._torchserve, self._settings, self._measures, self._shadow, caller, trial)

    async def close(self) -> None:
        """End what is done beside requests."""
        await self._shadow.close()


class _Asker:
    """Asks about one picture; if the picture is sent again, the stable captioner is asked."""

    def __init__(
        self,
        torchserve: TorchServeClient,
        settings: Settings,
        measures: VersionMeasures,
        shadow: Shadow,
        caller: Caller,
        trial: Trial | None,
    ) -> None:
        self._torchserve = torchserve
        self._settings = settings
        self._measures = measures
        self._shadow = shadow
        self._caller = caller
        self._trial = trial
        self._tried = False

    async def __call__(
        self, picture: bytes, options: Mapping[str, str], seconds: float
    ) -> CaptionResult:
        """Caption it, as `TorchServeClient.caption` does."""
        trial = self._trial
        if trial is None:
            return await self._stable(picture, options, seconds)
        if self._caller.wanted == CANDIDATE:
            return await self._pinned(trial, picture, options, seconds)
        if trial.shadow:
            result = await self._stable(picture, options, seconds)
            if not trial.stopped:
                self._shadow.offer(trial, picture, options, result)
            return result
        # One that was promoted or taken back while the picture waited for its turn gets nothing.
        if self._tried or trial.stopped or self._torchserve.backends.trial is not trial:
            return await self._stable(picture, options, seconds)
        self._tried = True
        return await self._with_fallback(trial, picture, options, seconds)

    async def _with_fallback(
        self, trial: Trial, picture: bytes, options: Mapping[str, str], seconds: float
    ) -> CaptionResult:
        begin = time.monotonic()
        limit = min(self._settings.candidate_seconds, seconds / 2)
        try:
            async with asyncio.timeout(limit):
                result = await self._torchserve.caption(picture, options, limit, trial.backend)
        except (CaptionError, GatewayError, TimeoutError) as error:
            problem: Exception = error
        else:
            self._answered(CANDIDATE, trial, result, time.monotonic() - begin)
            trial.note(failed=False)
            return result
        self._measures.fallbacks.inc()
        asked = time.monotonic()
        try:
            result = await self._stable(picture, options, seconds - (asked - begin))
        except GatewayError as error:
            if error.status_code < 500 and self._is_on(trial):
                self._measures.refused(CANDIDATE)
            raise
        # Options may ask for more than any captioner does in that time.
        is_slow = isinstance(problem, TimeoutError) and time.monotonic() - asked > limit
        if not is_slow and self._is_on(trial):
            self._measures.failed(CANDIDATE)
            logger.warning(
                "candidate %s: request %s failed, the stable captioner has answered: %r",
                trial.backend.inference,
                self._caller.request_id,
                problem,
            )
            trial.note(failed=True)
        return result

    async def _pinned(
        self, trial: Trial, picture: bytes, options: Mapping[str, str], seconds: float
    ) -> CaptionResult:
        """The candidate's own answer, whatever it is: for those who check it."""
        begin = time.monotonic()
        try:
            result = await self._torchserve.caption(picture, options, seconds, trial.backend)
        except CaptionError as error:  # not sent again, and not remembered as a deadly picture
            raise GatewayError.of(error) from None
        self._answered(CANDIDATE, trial, result, time.monotonic() - begin)
        return result

    async def _stable(
        self, picture: bytes, options: Mapping[str, str], seconds: float
    ) -> CaptionResult:
        begin = time.monotonic()
        try:
            result = await self._torchserve.caption(picture, options, seconds)
        except GatewayError as error:
            if error.status_code < 500:
                self._measures.refused(STABLE)
            else:
                self._measures.failed(STABLE)
            raise
        except (CaptionError, asyncio.CancelledError):  # cancelled at the deadline
            self._measures.failed(STABLE)
            raise
        self._answered(STABLE, None, result, time.monotonic() - begin)
        return result

    def _answered(
        self, version: str, trial: Trial | None, result: CaptionResult, seconds: float
    ) -> None:
        self._caller.answered_by.add(version)
        if trial is None or self._is_on(trial):
            self._measures.captioned(version, result, seconds)

    def _is_on(self, trial: Trial) -> bool:
        """Whether the trial has not ended meanwhile: figures have begun anew then."""
        return self._torchserve.backends.trial is trial
