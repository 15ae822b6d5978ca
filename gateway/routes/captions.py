"""Our own interface: pictures in, captions out; and what the captioner accepts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from gateway.captioning.captioner import Captioner
from gateway.pictures.reading import read_request
from gateway.routes.replies import (
    PICTURE_ERRORS,
    CaptionsReply,
    DescriptionReply,
    errors,
    several_reply,
)

_BASE64 = {
    "type": "string",
    "description": "a picture file as base64 text or a data: URL; or a URL as in `url`",
}
_URL = {
    "type": "string",
    "format": "uri",
    "description": "where the server fetches a picture, with http or https, if it is set to do so",
}
_OPTIONS = {"type": "object", "description": "names and limits: GET /v1/description"}
#: Members of a JSON body, one of which holds the pictures.
_PICTURES: dict[str, dict[str, Any]] = {
    "image": _BASE64,
    "images": {"type": "array", "items": _BASE64, "minItems": 1},
    "url": _URL,
    "urls": {"type": "array", "items": _URL, "minItems": 1},
}


def picture_body(*members: str) -> dict[str, Any]:
    """Documentation of a request's body that holds pictures.

    Args:
        members: Members of a JSON body, one of which holds them: names of `_PICTURES`.
    """
    return {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["data"],
                    "properties": {
                        "data": {"type": "array", "items": {"type": "string", "format": "binary"}}
                    },
                }
            },
            "application/json": {
                "schema": {
                    "anyOf": [
                        {
                            "type": "object",
                            "required": [name],
                            "properties": {name: _PICTURES[name], "options": _OPTIONS},
                        }
                        for name in members
                    ]
                }
            },
        },
    }


def routes(captioner: Captioner, feedback: Mapping[str, Any] | None = None) -> APIRouter:
    """`POST /v1/captions` and `GET /v1/description`.

    Args:
        captioner: Captions pictures.
        feedback: What the description says of feedback; None if none is taken.
    """
    router = APIRouter(tags=["captions"])

    @router.post(
        "/v1/captions",
        summary="Caption one picture or several",
        response_model=CaptionsReply,
        responses=errors(PICTURE_ERRORS),
        openapi_extra={"requestBody": picture_body(*_PICTURES)},
    )
    async def captions(request: Request) -> Response:
        """Send bytes, a form with files, or JSON; options also as parameters of the query.

        The status is 200 if a picture was captioned; each result is a caption or an error. If all
        failed it is the status of the first error, which then stands under `error` too.
        """
        begin = time.monotonic()
        description = await captioner.description()
        pictures, options = await read_request(request, description)
        outcomes = await captioner.caption(pictures, options)
        seconds = round(time.monotonic() - begin, 4)
        return several_reply(request.url.path, outcomes, description["model"], seconds=seconds)

    @router.get(
        "/v1/description",
        summary="What the captioner accepts",
        response_model=DescriptionReply,
        responses=errors({503: "the captioner is not ready"}),
    )
    async def description() -> Response:
        """Options with their limits, image formats and sizes, as the captioner gives them.

        `feedback` has the limits of `POST /feedback`; it is missing if no feedback is taken.
        """
        found = await captioner.description()
        return JSONResponse(found if feedback is None else {**found, "feedback": feedback})

    return router
