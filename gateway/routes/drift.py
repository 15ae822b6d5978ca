"""`/drift`: what has moved in the last captures, as `python -m monitoring.drift --json` says it.

The command runs as a process of its own: it needs pandas and Evidently, which would make the
gateway ten times as large, and seconds of a core, which would make captions wait. One runs at a
time, its answer is kept for some minutes, and it is ended when it takes too long.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict

from gateway.errors import GatewayError
from gateway.routes.replies import errors
from gateway.settings import Settings

#: Folder that `python -m monitoring.drift` runs in.
ROOT = Path(__file__).resolve().parent.parent.parent
#: Exit statuses of the command when it has an answer: nothing moved, something moved.
ANSWERED = (0, 1)
#: Seconds for which an answer is given again.
KEPT_SECONDS = 300.0
#: Fewest and most captures that may be asked for.
LEAST, MOST = 30, 100_000
#: Most answers that are kept, each for another number of captures.
KEPT = 8
ERRORS = {
    404: "there is no report, such as where there are too few captures",
    503: "the report took too long",
}


class DriftReply(BaseModel):
    """What has moved; see docs/drift.md."""

    model_config = ConfigDict(extra="allow")
    moved: bool
    captures: int


class DriftReports:
    """Runs the command.

    Args:
        settings: `drift_captures`, `drift_checkpoint` and `drift_seconds`.
    """

    def __init__(self, settings: Settings) -> None:
        assert settings.drift_captures is not None
        folder = settings.drift_captures.absolute()
        self._words = [sys.executable, "-m", "monitoring.drift", str(folder)]
        if settings.drift_checkpoint is not None:
            self._words += ["--checkpoint", str(settings.drift_checkpoint.absolute())]
        self._seconds = settings.drift_seconds
        self._one_at_a_time = asyncio.Lock()
        self._kept: dict[int, tuple[float, dict[str, Any]]] = {}

    async def report(self, last: int) -> dict[str, Any]:
        """The report on the last captures.

        Args:
            last: How many.

        Raises:
            GatewayError: There is none, or it took too long.
        """
        async with self._one_at_a_time:
            when, kept = self._kept.get(last, (-KEPT_SECONDS, {}))
            if time.monotonic() - when < KEPT_SECONDS:
                return kept
            found = await self._run(last)
            while len(self._kept) >= KEPT:
                del self._kept[min(self._kept, key=lambda each: self._kept[each][0])]
            self._kept[last] = time.monotonic(), found
            return found

    async def _run(self, last: int) -> dict[str, Any]:
        process = await asyncio.create_subprocess_exec(
            *self._words,
            *("--last", str(last), "--json"),
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(self._seconds):
                out, complaint = await process.communicate()
        except TimeoutError:
            raise GatewayError(
                503,
                "drift_too_slow",
                f"the report on drift took over {self._seconds:g} s "
                "(GATEWAY_DRIFT_SECONDS); ask for fewer captures, or later",
            ) from None
        finally:  # also when the client has left
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode not in ANSWERED:
            lines = complaint.decode(errors="replace").strip().splitlines() or ["no reason given"]
            raise GatewayError(404, "no_drift_report", lines[-1].removeprefix("error: "))
        found: dict[str, Any] = json.loads(out)
        return found


def routes(settings: Settings) -> APIRouter:
    """`GET /drift`, if the settings name a folder of captures."""
    router = APIRouter(tags=["state"])
    if settings.drift_captures is None:
        return router
    reports = DriftReports(settings)

    @router.get("/drift", response_model=DriftReply, responses=errors(ERRORS))
    async def drift(last: Annotated[int, Query(ge=LEAST, le=MOST)] = 1000) -> Response:
        """What has moved in the last captures against usual pictures, and against last week."""
        return JSONResponse(await reports.report(last))

    return router
