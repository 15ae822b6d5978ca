"""Whether the gateway is alive and ready, and what it counts."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from gateway.captioning.captioner import Captioner
from gateway.captioning.torchserve import TorchServeClient
from gateway.errors import NotReady
from gateway.measures import Measures
from gateway.routes.replies import StateReply, errors

#: Prometheus' text format.
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
NOT_READY = {503: "no worker is ready, or the sample was not captioned"}


def routes(captioner: Captioner, torchserve: TorchServeClient, measures: Measures) -> APIRouter:
    """`/healthz`, `/readyz` and `/metrics`."""
    router = APIRouter(tags=["state"])

    @router.get("/healthz", response_model=StateReply, responses=errors())
    async def alive() -> Response:
        """The gateway answers; TorchServe is not asked."""
        return JSONResponse({"status": "alive"})

    @router.get("/readyz", response_model=StateReply, responses=errors(NOT_READY))
    async def ready() -> Response:
        """A worker is ready, and a picture was captioned within the last minute."""
        await check_ready(captioner)
        return JSONResponse({"status": "ready"})

    @router.get(
        "/metrics",
        response_class=Response,
        responses={**errors(), 200: {"content": {"text/plain": {}}, "description": "metrics"}},
    )
    async def metrics() -> Response:
        """The gateway's metrics and TorchServe's, for one scrape of Prometheus."""
        backends = torchserve.backends
        trial = backends.trial
        candidate = torchserve.metrics(trial.backend) if trial else asyncio.sleep(0)
        found, state, other = await asyncio.gather(
            torchserve.metrics(backends.current), torchserve.state(), candidate
        )
        text = measures.text(found, state, backends, other)
        return Response(text, headers={"Content-Type": METRICS_TYPE})

    return router


async def check_ready(captioner: Captioner) -> None:
    """Raise `NotReady` unless a worker is ready and a picture was captioned within a minute."""
    if not await captioner.is_ready():
        raise NotReady()
