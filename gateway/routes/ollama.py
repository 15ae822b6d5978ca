"""Ollama's interface: `/api/generate` and `/api/chat` with `images`, `/api/tags`, `/api/version`.

Text is not read: a captioner takes no instructions. As with Ollama, an answer is streamed, a JSON
object a line, unless `stream` is false.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict

from client import CaptionResult
from gateway.captioning.captioner import Captioner
from gateway.errors import GatewayError
from gateway.pictures.options import at_most_tokens, known_options, option_texts
from gateway.pictures.reading import decode_base64
from gateway.routes.model_names import check_model
from gateway.routes.replies import PICTURE_ERRORS, errors, results_of

#: Of the Ollama interface that is spoken here.
VERSION = "0.6.0"
STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/x-ndjson": {}}, "description": "also line by line"}
}


class _Request(BaseModel):
    model_config = ConfigDict(extra="allow")
    model: str
    stream: bool | None = None
    options: dict[str, Any] | None = None


class OllamaGenerate(_Request):
    """A prompt, which is not read, with pictures in base64."""

    prompt: str | None = None
    images: list[str] | None = None


class OllamaMessage(BaseModel):
    """A message of the chat, with pictures in base64."""

    model_config = ConfigDict(extra="allow")
    role: str
    content: str | None = None
    images: list[str] | None = None


class OllamaChat(_Request):
    """A chat; the pictures of the last message that has any are captioned."""

    messages: list[OllamaMessage] | None = None


class _Reply(BaseModel):
    model_config = ConfigDict(extra="allow")
    model: str
    created_at: str
    done: bool


class OllamaGenerated(_Reply):
    """The captions, a line for each picture."""

    response: str


class ChatAnswer(BaseModel):
    """The captioner's message."""

    role: Literal["assistant"]
    content: str


class OllamaChatReply(_Reply):
    """The captions, a line for each picture."""

    message: ChatAnswer


class TagsReply(BaseModel):
    """The one model that is served."""

    models: list[dict[str, Any]]


class VersionReply(BaseModel):
    """Version of the interface."""

    version: str


def _reason(results: Sequence[CaptionResult]) -> str:
    """Why an answer ended: at its end, at the limit of tokens, or as nothing was to be done."""
    if not results:
        return "load"
    return "length" if any(r.captions[0].finish_reason != "end" for r in results) else "stop"


def routes(captioner: Captioner, model: str) -> APIRouter:
    """The four routes."""
    router = APIRouter(tags=["Ollama"])
    picture_errors = errors(PICTURE_ERRORS, text=True)

    async def answer(request: _Request, images: Sequence[str], field: str) -> Response:
        """Caption pictures and reply with the text in a field: `response` or `message`."""
        begin = time.monotonic_ns()
        results: list[CaptionResult] = []
        if images:
            description = await captioner.description()
            given = request.options or {}
            found = known_options(description, given)
            tokens = given.get("num_predict")
            if type(tokens) is int and tokens > 0:  # Ollama: -1 is without a limit
                found.setdefault("max_tokens", at_most_tokens(description, tokens))
            options = option_texts(description, found.items())
            pictures = [decode_base64(each, f"images[{i}]") for i, each in enumerate(images)]
            results = results_of(await captioner.caption(pictures, options))
        text = "\n".join(result.caption for result in results)
        head = {"model": request.model, "created_at": datetime.now(UTC).isoformat()}
        end = {
            "done": True,
            "done_reason": _reason(results),
            "total_duration": time.monotonic_ns() - begin,
            "eval_count": sum(result.captions[0].tokens for result in results),
        }

        def content(part: str) -> dict[str, Any]:
            chat = {"role": "assistant", "content": part}
            return {field: chat if field == "message" else part}

        if request.stream is False:
            return JSONResponse({**head, **content(text), **end})
        lines = [{**head, **content(text), "done": False}, {**head, **content(""), **end}]
        return StreamingResponse(_lines(lines), media_type="application/x-ndjson")

    @router.post(
        "/api/generate", response_model=OllamaGenerated, responses={**picture_errors, **STREAM}
    )
    async def generate(request: OllamaGenerate) -> Response:
        """Caption pictures. With neither picture nor prompt, say that the model is loaded."""
        check_model(request.model, model)
        if request.prompt and not request.images:
            raise _no_image()
        return await answer(request, request.images or [], "response")

    @router.post(
        "/api/chat", response_model=OllamaChatReply, responses={**picture_errors, **STREAM}
    )
    async def chat(request: OllamaChat) -> Response:
        """Caption the pictures of the last message that has any."""
        check_model(request.model, model)
        messages = request.messages or []
        images = next((each.images for each in reversed(messages) if each.images), [])
        if messages and not images:
            raise _no_image()
        return await answer(request, images, "message")

    @router.get("/api/tags", response_model=TagsReply, responses=errors(text=True))
    async def tags() -> Response:
        """The model that is served."""
        details = {"format": "torchscript", "family": "clipcap", "families": ["clipcap"]}
        entry = {
            "name": f"{model}:latest",
            "model": f"{model}:latest",
            "modified_at": datetime.fromtimestamp(started, UTC).isoformat(),
            "size": 0,  # TorchServe does not say
            "digest": hashlib.sha256(model.encode()).hexdigest(),
            "details": {**details, "parameter_size": "", "quantization_level": ""},
        }
        return JSONResponse({"models": [entry]})

    started = time.time()

    @router.get("/api/version", response_model=VersionReply, responses=errors(text=True))
    async def version() -> Response:
        """Version of Ollama's interface that is spoken here."""
        return JSONResponse({"version": VERSION})

    return router


def _no_image() -> GatewayError:
    return GatewayError(
        400, "no_image", "the request has no images; a captioner answers only to pictures"
    )


def _lines(objects: Sequence[dict[str, Any]]) -> Iterator[str]:
    for each in objects:
        yield f"{json.dumps(each)}\n"
