"""What people think of captions: thumbs, a better caption, and a picture to train on."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field, StrictStr, ValidationError
from starlette.datastructures import UploadFile

from feedback.errors import OpinionRefused
from feedback.opinions import Opinion
from gateway.access.callers import CALLER, Rates
from gateway.access.door import FEEDBACK_PATH, REQUEST_ID
from gateway.captioning.captioner import check_picture
from gateway.errors import GatewayError
from gateway.feedback.recorder import Recorder
from gateway.pictures.reading import MAX_TEXT_BYTES, decode_base64, is_form, parse_json
from gateway.routes.replies import errors
from gateway.settings import PREFIX, Settings

#: Most pictures of a request and captions of a picture that a number may name.
MOST = 10_000
#: Code of a feedback that is not taken -> status; 422 for any other.
STATUS = {
    "unknown_request": 404,
    "unknown_picture": 404,
    "unknown_caption": 404,
    "expired": 410,
    "full": 503,
}
#: Seconds until there may be room again in a database that is full.
FULL_SECONDS = 3600.0
#: Form fields of a feedback; with the picture there is one more.
_FIELDS = 6

_PROPERTIES: dict[str, Any] = {
    "request_id": {
        "type": "string",
        "pattern": f"^{REQUEST_ID.pattern}$",
        "description": "X-Request-Id of the reply with the caption",
    },
    "picture_index": {
        "type": "integer",
        "minimum": 0,
        "maximum": MOST,
        "default": 0,
        "description": "of the picture in the request, from 0",
    },
    "caption_index": {
        "type": "integer",
        "minimum": 0,
        "maximum": MOST,
        "default": 0,
        "description": "of the caption among those of the picture, from 0",
    },
    "thumbs": {"type": "string", "enum": ["up", "down"]},
    "correction": {"type": "string", "minLength": 1, "description": "a better caption"},
}
_IMAGE = "the picture that was captioned, to be kept and trained on"


def _body(longest: int) -> dict[str, Any]:
    """Documentation of the request's body.

    Args:
        longest: Most characters of a correction.
    """
    fields = {
        **_PROPERTIES,
        "correction": {**_PROPERTIES["correction"], "maxLength": longest},
    }
    text = {"type": "string", "description": f"{_IMAGE}, as base64 text"}
    file = {"type": "string", "format": "binary", "description": _IMAGE}
    common = {"type": "object", "required": ["request_id"], "additionalProperties": False}
    return {
        "required": True,
        "content": {
            "application/json": {"schema": {**common, "properties": {**fields, "image": text}}},
            "multipart/form-data": {"schema": {**common, "properties": {**fields, "image": file}}},
        },
    }


class _Given(BaseModel):
    """A request, once it is read."""

    model_config = ConfigDict(extra="forbid")
    request_id: StrictStr = Field(pattern=f"^{REQUEST_ID.pattern}$")
    picture_index: int = Field(0, ge=0, le=MOST)
    caption_index: int = Field(0, ge=0, le=MOST)
    thumbs: Literal["up", "down"] | None = None
    correction: StrictStr | None = None


class FeedbackReply(BaseModel):
    """What is stored now of this client about a caption."""

    request_id: str
    picture_index: int
    caption_index: int
    caption: str
    thumbs: Literal["up", "down"] | None
    correction: str | None
    picture_kept: bool
    replaced: bool


def description(settings: Settings) -> dict[str, Any] | None:
    """What the server says of feedback; None if it takes none."""
    if not settings.feedback:
        return None
    return {
        "hours": settings.feedback_hours,
        "max_characters": settings.feedback_text,
        "pictures": settings.feedback_picture_bytes > 0,
    }


def routes(recorder: Recorder | None, settings: Settings) -> APIRouter:
    """`POST /feedback`. If no feedback is taken it says so, and is not documented."""
    router = APIRouter(tags=["feedback"])
    rates = Rates(settings.feedback_burst, "feedbacks")

    @router.post(
        FEEDBACK_PATH,
        summary="Rate a caption, or send a better one",
        response_model=FeedbackReply,
        responses=errors(
            {
                400: "the body is not JSON or not a form, or the picture is not base64",
                404: "no such caption was given, or not to this client",
                408: "the body came too slowly",
                410: "the caption was given too long ago",
                413: "too many bytes",
                415: "an encoding that is not accepted",
                422: "a field that is unknown or has a bad value, or another picture",
                429: "the client sends more feedback than it may",
                503: "the database does not answer, or holds as much as it may",
            }
        ),
        openapi_extra={"requestBody": _body(settings.feedback_text)},
        include_in_schema=recorder is not None,
    )
    async def feedback(request: Request) -> Response:
        """Say thumbs up or down of a caption, write a better one, or both.

        What a client says later of the same caption takes the place of what it said before. A
        picture is stored only if it is sent along.
        """
        if recorder is None:
            raise GatewayError(
                404,
                "no_feedback",
                f"this server takes no feedback, because {PREFIX}FEEDBACK names no database",
            )
        outcome = "fault"
        try:
            rates.take(dataclasses.replace(CALLER.get(), rate=settings.feedback_rate), 1)
            opinion = await _read(request, settings)
            stored = await recorder.submit(opinion)
            outcome = "replaced" if stored.replaced else "stored"
        except OpinionRefused as error:
            outcome = error.code
            pause = FULL_SECONDS if error.code == "full" else None
            status = STATUS.get(error.code, 422)
            raise GatewayError(status, error.code, str(error), pause) from None
        except GatewayError as error:
            outcome = error.code
            raise
        finally:
            recorder.measures.feedback.labels(outcome).inc()
        return JSONResponse(
            {
                "request_id": opinion.request_id,
                "picture_index": opinion.picture_index,
                "caption_index": opinion.caption_index,
                "caption": stored.caption,
                "thumbs": opinion.thumbs,
                "correction": opinion.correction,
                "picture_kept": stored.picture_kept,
                "replaced": stored.replaced,
            }
        )

    return router


async def _read(request: Request, settings: Settings) -> Opinion:
    """What a client says of a caption.

    Raises:
        GatewayError: The body cannot be read, or a field is unknown or has a bad value.
    """
    picture = None
    if is_form(request):
        fields, picture = await _read_form(request)
    else:
        fields = parse_json(await request.body())
        if (text := fields.pop("image", None)) is not None:
            picture = decode_base64(text, "image")
    try:
        given = _Given.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])[:60]
        raise GatewayError(422, "bad_request", f"{place}: {first['msg']}") from None
    if picture is not None:
        check_picture(picture, settings.max_picture_bytes)
    return Opinion(caller=CALLER.get().name, picture=picture, **given.model_dump())


async def _read_form(request: Request) -> tuple[dict[str, Any], bytes | None]:
    """The fields of a form, and its picture if it has one."""
    fields: dict[str, Any] = {}
    picture = None
    async with request.form(max_files=1, max_fields=_FIELDS, max_part_size=MAX_TEXT_BYTES) as form:
        for name, value in form.multi_items():
            if name in fields or (name == "image" and picture is not None):
                raise GatewayError(
                    422, "bad_request", f"the form has {name[:40]!r} twice; send it once"
                )
            if name != "image":
                fields[name] = value if isinstance(value, str) else None
            elif isinstance(value, UploadFile):
                picture = await value.read()
            else:
                picture = decode_base64(value, "image")
    return fields, picture
