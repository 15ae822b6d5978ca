"""Hugging Face's interface for image-to-text, as `InferenceClient.image_to_text` asks it.

The reply has a list of captions; where `inputs` is a list, a list for each picture of it.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, RootModel

from gateway.captioning.captioner import Captioner
from gateway.errors import GatewayError
from gateway.pictures.options import option_texts
from gateway.pictures.reading import (
    Picture,
    file_or_url,
    is_hugging_face,
    parse_json,
    read_document,
)
from gateway.routes.model_names import check_model
from gateway.routes.replies import PICTURE_ERRORS, errors, results_of

_BODY = {
    "required": True,
    "content": {
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["inputs"],
                "properties": {
                    "inputs": {
                        "anyOf": [
                            {"type": "string"},
                            {"type": "array", "items": {"type": "string"}, "minItems": 1},
                        ],
                        "description": "a picture file as base64 text, or its URL; or several",
                    },
                    "parameters": {"type": "object"},
                },
            }
        },
    },
}


class GeneratedText(BaseModel):
    """One caption."""

    generated_text: str


class GeneratedTexts(RootModel[list[GeneratedText] | list[list[GeneratedText]]]):
    """The captions of the picture, best first; or of each of several."""


def routes(captioner: Captioner, model: str) -> APIRouter:
    """`POST /models/NAME`."""
    router = APIRouter(tags=["Hugging Face"])

    @router.post(
        "/models/{name}",
        response_model=GeneratedTexts,
        responses=errors(PICTURE_ERRORS),
        openapi_extra={"requestBody": _BODY},
    )
    async def image_to_text(name: str, request: Request) -> Response:
        """Caption the picture that the body is, or that `inputs` of its JSON holds."""
        check_model(name, model)
        description = await captioner.description()
        body = await request.body()
        pictures: list[Picture] = [file_or_url(body)]
        options: dict[str, str] = {}
        several = False
        # `curl -d` declares a form.
        declared = "json" in request.headers.get("content-type", "").lower()
        if declared or body[:64].lstrip().startswith(b"{"):
            document = parse_json(body)
            if not is_hugging_face(document):
                raise GatewayError(
                    400, "bad_base64", '"inputs" must be a picture file as base64 text, or a list'
                )
            pictures, members = read_document(document)
            options = option_texts(description, members.items())
            several = isinstance(document["inputs"], list)
        results = results_of(await captioner.caption(pictures, options))
        found = [[{"generated_text": each.caption} for each in one.captions] for one in results]
        return JSONResponse(found if several else found[0])

    return router
