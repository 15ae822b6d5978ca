"""Builds the gateway's application from its settings."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from gateway import __version__
from gateway.access.bodies import Bodies
from gateway.access.callers import CAPTIONER_HEADER
from gateway.access.door import Door
from gateway.access.keys import read_keys
from gateway.captioning.captioner import Captioner
from gateway.captioning.torchserve import TorchServeClient
from gateway.errors import add_handlers
from gateway.feedback.measures import FeedbackMeasures
from gateway.feedback.recorder import Recorder
from gateway.measures import Measures
from gateway.pictures.fetching import Fetcher
from gateway.routes import (
    captions,
    drift,
    explanations,
    feedback,
    hugging_face,
    kserve_v1,
    kserve_v2,
    ollama,
    openai_chat,
    openapi,
    page_files,
    predictions,
    state,
)
from gateway.settings import Settings
from gateway.telemetry.tracing import Tracing


def create_app(
    settings: Settings,
    torchserve: TorchServeClient,
    measures: Measures,
    tracing: Tracing | None = None,
) -> ASGIApp:
    """The application that `gateway/listening/server.py` runs.

    Args:
        settings: Checked already.
        torchserve: Its `backends` may be moved while the application runs. It is closed with the
            application.
        measures: What `/metrics` shows.
        tracing: Takes the spans of requests, and is closed with the application; None for no
            traces.

    Raises:
        SettingsError: The file of keys or the database of feedback cannot be used.
    """
    keys = read_keys(settings.keys) if settings.keys else {}
    fetcher = Fetcher(settings) if settings.fetch_urls else None
    recorder = None
    if settings.feedback:
        recorder = Recorder(settings, FeedbackMeasures(measures.registry))
    bodies = Bodies(settings, measures)
    captioner = Captioner(torchserve, settings, measures, fetcher, bodies, recorder)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if recorder:
            recorder.start()
        yield
        await captioner.close()
        if recorder:
            await asyncio.to_thread(recorder.stop)
        await torchserve.close()
        if fetcher:
            fetcher.close()
        if tracing:
            await asyncio.to_thread(tracing.close)  # waits for the collector

    # No documentation pages: FastAPI's load their scripts from another server.
    app = FastAPI(
        title="Captioner",
        summary="Captions of pictures, in our own interface and in those of existing programs.",
        version=__version__,
        openapi_url=None,  # added below, with the captioner's options
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    add_handlers(app)
    openapi.add_route(app, captioner)
    page = page_files.page_files()
    for router in (
        captions.routes(captioner, feedback.description(settings)),
        feedback.routes(recorder, settings),
        explanations.routes(captioner, settings.model),
        predictions.routes(captioner, settings.model),
        openai_chat.routes(captioner, settings.model),
        ollama.routes(captioner, settings.model),
        hugging_face.routes(captioner, settings.model),
        kserve_v1.routes(captioner, settings.model),
        kserve_v2.routes(captioner, settings.model),
        state.routes(captioner, torchserve, measures),
        drift.routes(settings),
        page_files.routes(page),
    ):
        app.include_router(router)
    open_paths = frozenset({"/", *page})
    door = Door(app, settings, measures, keys, open_paths, captioner.overload, bodies, tracing)
    if not settings.cors_origins:
        return door
    # Around the door, so that a page can read the refusal of a request without a key.
    return CORSMiddleware(
        door,
        allow_origins=settings.cors_origins,
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        expose_headers=["X-Request-Id", CAPTIONER_HEADER, "Retry-After"],
    )
