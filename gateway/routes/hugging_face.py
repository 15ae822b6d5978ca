"""Hugging Face's interface for image-to-text, as `InferenceClient.image_to_text` asks it."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, RootModel

from gateway.captioning.captioner import Captioner
from gateway.errors import GatewayError
from gateway.pictures.options import option_texts
from gateway.pictures.reading import Picture, parse_json, read_picture
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
                        "type": "string",
                        "description": "a picture file as base64 text, or its URL",
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


class GeneratedTexts(RootModel[list[GeneratedText]]):
    """The captions of the picture, best first."""


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
        picture: Picture = body
        options: dict[str, str] = {}
        if "json" in request.headers.get("content-type", "").lower():
            document = parse_json(body)
            parameters = document.get("parameters") or {}
            if not isinstance(parameters, dict):
                raise GatewayError(400, "bad_json", '"parameters" must be an object')
            options = option_texts(description, parameters.items())
            picture = read_picture(document.get("inputs"), "inputs")
        [result] = results_of(await captioner.caption([picture], options))
        return JSONResponse([{"generated_text": each.caption} for each in result.captions])

    return router
