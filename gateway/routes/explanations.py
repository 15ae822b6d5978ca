"""What each word of a caption rests on in its picture, as numbers or as a picture to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from gateway.captioning.captioner import Captioner
from gateway.captioning.torchserve import Explained
from gateway.errors import GatewayError
from gateway.pictures.options import Description
from gateway.pictures.reading import Picture, read_request
from gateway.routes.captions import picture_body
from gateway.routes.model_names import check_model
from gateway.routes.replies import PICTURE_ERRORS, Model, OneCaption, errors

#: Fields that ask for an explanation, beside the options of captions.
FIELDS = ("explain", "grid", "format")


class Crop(BaseModel):
    """The part of the upright picture that the grid covers, as fractions of its sides."""

    x: float
    y: float
    width: float
    height: float


class ExplainedWord(BaseModel):
    """A word: `caption[from:to]`, and what each cell is worth to it, in nats.

    `log_prob` is its log-probability of the whole picture, `log_prob_blank` that without one.
    """

    word: str
    from_: int = Field(alias="from")
    to: int
    log_prob: float
    log_prob_blank: float
    cells: list[list[float]]


class Explanation(BaseModel):
    """The words of the best caption; `passes` is the number of images that it took."""

    grid: list[int]
    crop: Crop
    passes: int
    words: list[ExplainedWord]


class ExplanationReply(BaseModel):
    """The captions of one picture, best first, and the explanation of the best one."""

    caption: str
    confidence: float
    captions: list[OneCaption]
    explanation: Explanation
    model: Model
    warnings: list[str] | None = None


def routes(captioner: Captioner, model: str) -> APIRouter:
    """`POST /v1/explanations`, and `/explanations/NAME` as TorchServe has it."""
    router = APIRouter(tags=["explanations"])
    png = {"image/png": {"schema": {"type": "string", "format": "binary"}}}
    documented: dict[str, Any] = {
        "summary": "Caption one picture and explain the caption",
        "response_model": ExplanationReply,
        "responses": {
            **errors(PICTURE_ERRORS),
            200: {"content": png, "description": "the explanation; a PNG where format is png"},
        },
        "openapi_extra": {"requestBody": picture_body("image", "url")},
    }

    @router.post("/v1/explanations", **documented)
    async def explanations(request: Request) -> Response:
        """What part of the picture each word of its caption rests on.

        Send bytes, a form with a file, or JSON; options, `grid` and `format` also as parameters of
        the query.
        """
        return await _reply(captioner, request)

    @router.post("/explanations/{name}", **documented)
    async def explanations_of(name: str, request: Request) -> Response:
        """The same, where programs written for TorchServe ask for it."""
        check_model(name, model)
        return await _reply(captioner, request)

    return router


def with_explanations(description: Description, *names: str) -> dict[str, Any]:
    """A description in which fields of explanations are known as options are.

    Args:
        description: The captioner's own.
        names: Of `FIELDS`; all of them if none is given.
    """
    if "explanation" not in description:  # an archive that was packed before there were any
        return dict(description)
    fields: dict[str, Any] = dict.fromkeys(names or FIELDS, {})
    return {**description, "options": {**description["options"], **fields}}


def asks_for_explanation(options: Mapping[str, str]) -> bool:
    """Whether options have a field of explanations; the handler checks what it says."""
    return any(name in options for name in FIELDS)


def as_response(explained: Explained) -> Response:
    """The handler's reply, passed on."""
    return Response(explained.content, media_type=explained.content_type)


async def _reply(captioner: Captioner, request: Request) -> Response:
    description = await captioner.description()
    if "explanation" not in description:
        raise GatewayError(
            400, "no_explanations", "the captioner that is served gives no explanations"
        )
    pictures, options = await read_request(
        request, with_explanations(description, "grid", "format")
    )
    return as_response(
        await captioner.explain(one_picture(pictures), {**options, "explain": "true"})
    )


def one_picture(pictures: Sequence[Picture]) -> Picture:
    """The only picture of a request for an explanation.

    Raises:
        GatewayError: It holds several.
    """
    if len(pictures) > 1:
        raise GatewayError(
            400,
            "no_explanations",
            f"the request holds {len(pictures)} pictures; an explanation is of one; send several "
            "requests",
        )
    return pictures[0]
