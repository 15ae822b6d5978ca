"""OpenAI's chat completions: a message with an image gets its caption as the answer.

The images of the last message that has any are captioned, each on a line of its own. Text is not
read: a captioner takes no instructions.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict

from client import Caption
from gateway.captioning.captioner import Captioner
from gateway.errors import GatewayError
from gateway.pictures.options import Description, at_most_tokens, known_options, option_texts
from gateway.pictures.reading import read_picture
from gateway.routes.model_names import check_model
from gateway.routes.replies import PICTURE_ERRORS, errors, results_of


class ImageUrl(BaseModel):
    """`data:image/jpeg;base64,...`, or the address of a picture if the server fetches such."""

    url: str


class Part(BaseModel):
    """A part of a message: text, or an image."""

    model_config = ConfigDict(extra="allow")
    type: str
    text: str | None = None
    image_url: ImageUrl | None = None


class Message(BaseModel):
    """A message of the chat."""

    model_config = ConfigDict(extra="allow")
    role: str
    content: str | list[Part] | None = None


class ChatRequest(BaseModel):
    """A request for a chat completion; options of the captioner may be fields too.

    Fields that mean nothing to a captioner, such as `temperature`, are ignored.
    """

    model_config = ConfigDict(extra="allow")
    model: str
    messages: list[Message]
    stream: bool | None = None
    n: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None


class Answer(BaseModel):
    """The captioner's message."""

    role: Literal["assistant"]
    content: str


class Choice(BaseModel):
    """One of `n` answers."""

    index: int
    message: Answer
    finish_reason: Literal["stop", "length"]


class ChatReply(BaseModel):
    """A chat completion."""

    model_config = ConfigDict(extra="allow")
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]


class ModelEntry(BaseModel):
    """A model; `name` and `ready` are for clients of KServe v1."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    name: str
    ready: bool


class ModelList(BaseModel):
    """The one model that is served."""

    object: Literal["list"]
    data: list[ModelEntry]


def routes(captioner: Captioner, model: str) -> APIRouter:
    """`POST /v1/chat/completions`, `GET /v1/models` and `GET /v1/models/NAME`."""
    router = APIRouter(tags=["OpenAI"])
    started = int(time.time())
    entry = {
        "id": model,
        "object": "model",
        "created": started,
        "owned_by": "clipcap",
        "name": model,
        "ready": True,
    }

    @router.post(
        "/v1/chat/completions",
        response_model=ChatReply,
        responses={
            **errors(PICTURE_ERRORS),
            200: {
                "model": ChatReply,
                "content": {"text/event-stream": {}},
                "description": "a chat completion, or its parts as events if `stream` is true",
            },
        },
    )
    async def complete(chat: ChatRequest) -> Response:
        """Caption the images of the last message that has any."""
        check_model(chat.model, model)
        description = await captioner.description()
        pictures = [read_picture(url, "image_url.url") for url in _image_urls(chat.messages)]
        if not pictures:
            raise GatewayError(
                400, "no_image", "no message has an image; send a part of the type image_url"
            )
        options = option_texts(description, _options(chat, description).items())
        results = results_of(await captioner.caption(pictures, options))
        # With n, answer i holds the i-th caption of each picture.
        lines = zip(*(each.captions for each in results), strict=True)
        answers = [_answer(captions) for captions in lines]
        head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}
        if chat.stream:
            return StreamingResponse(_events(head, answers), media_type="text/event-stream")
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": text, "refusal": None},
                "logprobs": None,
                "finish_reason": reason,
            }
            for index, (text, reason) in enumerate(answers)
        ]
        tokens = sum(caption.tokens for each in results for caption in each.captions)
        usage = {"prompt_tokens": 0, "completion_tokens": tokens, "total_tokens": tokens}
        return JSONResponse(
            {**head, "object": "chat.completion", "choices": choices, "usage": usage}
        )

    @router.get("/v1/models", response_model=ModelList, responses=errors())
    async def models() -> Response:
        """The model that is served."""
        return JSONResponse({"object": "list", "data": [entry]})

    @router.get("/v1/models/{name}", response_model=ModelEntry, responses=errors())
    async def one_model(name: str) -> Response:
        """The model of that name; `ready` is for clients of KServe v1."""
        check_model(name, model)
        return JSONResponse({**entry, "ready": await captioner.is_ready()})

    return router


def _image_urls(messages: list[Message]) -> list[str]:
    """The addresses of the images of the last message that has any."""
    for message in reversed(messages):
        if isinstance(message.content, list):
            urls = [part.image_url.url for part in message.content if part.image_url]
            if urls:
                return urls
    return []


def _options(chat: ChatRequest, description: Description) -> dict[str, Any]:
    """The captioner's options in a request: `n`, limits of tokens, and those with its names."""
    found = known_options(description, chat.model_extra or {})
    if (tokens := chat.max_completion_tokens or chat.max_tokens) is not None:
        found["max_tokens"] = at_most_tokens(description, tokens)
    if chat.n is not None:
        found["num_captions"] = chat.n
    return found


def _answer(captions: Sequence[Caption]) -> tuple[str, str]:
    """The text of an answer, a line for each picture, and why it ended."""
    cut = any(caption.finish_reason != "end" for caption in captions)
    return "\n".join(caption.caption for caption in captions), "length" if cut else "stop"


def _events(head: dict[str, Any], answers: Sequence[tuple[str, str]]) -> Iterator[str]:
    """The parts of a streamed completion: a caption comes whole, so each answer is one part."""
    for index, (text, end) in enumerate(answers):
        for delta, reason in (({"role": "assistant", "content": text}, None), ({}, end)):
            choice = {"index": index, "delta": delta, "finish_reason": reason}
            part = {**head, "object": "chat.completion.chunk", "choices": [choice]}
            yield f"data: {json.dumps(part)}\n\n"
    yield "data: [DONE]\n\n"
