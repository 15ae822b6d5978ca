"""TorchServe's own interface, `/predictions/NAME`: programs written for TorchServe ask the gateway.

A picture comes as bytes, in a form, or in JSON of our own or of KServe. The reply is the one that
TorchServe gives with our handler. Unlike there, options may stand in the query too, a form that
cannot be read is answered 400, and every error has a body.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, RootModel

from gateway.captioning.captioner import Captioner
from gateway.errors import GatewayError, error_response
from gateway.pictures.options import Description, option_texts
from gateway.pictures.reading import (
    Picture,
    file_or_url,
    holds_fields,
    is_form,
    is_hugging_face,
    parse_json,
    read_document,
    read_form,
    without_unread,
)
from gateway.routes.explanations import (
    as_response,
    asks_for_explanation,
    one_picture,
    with_explanations,
)
from gateway.routes.kserve_tensors import LENGTH_HEADER
from gateway.routes.kserve_v1 import PredictReply, answer_predict
from gateway.routes.kserve_v2 import MODEL as KSERVE_V2
from gateway.routes.kserve_v2 import InferReply, answer_infer
from gateway.routes.model_names import check_model, check_version
from gateway.routes.replies import (
    PICTURE_ERRORS,
    CaptionsReply,
    Features,
    Model,
    OneCaption,
    OodReply,
    errors,
    results_of,
    several_reply,
)

_FILE = {"type": "string", "format": "binary"}
_BODY = {
    "required": True,
    "content": {
        "application/octet-stream": {"schema": _FILE},
        "multipart/form-data": {
            "schema": {"type": "object", "required": ["data"], "properties": {"data": _FILE}}
        },
        "application/json": {
            "schema": {
                "anyOf": [
                    {
                        "type": "object",
                        "required": ["image"],
                        "properties": {
                            "image": {"type": "string", "description": "a picture file as base64"},
                            "options": {"type": "object"},
                        },
                    },
                    {
                        "type": "object",
                        "required": ["images"],
                        "properties": {
                            "images": {"type": "array", "items": {"type": "string"}},
                            "options": {"type": "object"},
                        },
                    },
                    {
                        "type": "object",
                        "required": ["instances"],
                        "description": "as for /v1/models/{name}:predict",
                    },
                    {
                        "type": "object",
                        "required": ["inputs"],
                        "description": "as for /v2/models/{name}/infer, or for /models/{name}",
                    },
                ]
            }
        },
    },
}


class PlainReply(BaseModel):
    """The captions of one picture, best first; the best one stands at the top too."""

    caption: str
    confidence: float
    captions: list[OneCaption]
    model: Model
    warnings: list[str] | None = None
    quality: float | None = None
    features: Features | None = None
    ood: OodReply | None = None


class SeveralReply(CaptionsReply):
    """What became of each of several pictures."""

    seconds: float | None = None  # type: ignore[assignment]


class PredictionReply(RootModel[PlainReply | SeveralReply | PredictReply | InferReply]):
    """Captions in the form of the request: of one picture, of several, or KServe's v1 or v2."""


def routes(captioner: Captioner, model: str) -> APIRouter:
    """`POST` and `PUT` of `/predictions/NAME` and `/predictions/NAME/VERSION`."""
    router = APIRouter(tags=["TorchServe"])
    documented: dict[str, Any] = {
        "response_model": PredictionReply,
        "responses": {
            **errors(PICTURE_ERRORS, either=True),
            200: {
                "content": {"application/octet-stream": {}, "image/png": {}},
                "description": "captions; a PNG where explain is true and format is png",
            },
        },
        "openapi_extra": {"requestBody": _BODY},
    }

    # `curl -T` sends PUT.
    @router.put("/predictions/{name}", **documented)
    @router.post("/predictions/{name}", **documented)
    async def predict(name: str, request: Request) -> Response:
        """Caption a picture, as TorchServe does; options also as parameters of the query."""
        check_model(name, model)
        return await _reply(captioner, request)

    @router.put("/predictions/{name}/{version}", **documented)
    @router.post("/predictions/{name}/{version}", **documented)
    async def predict_version(name: str, version: str, request: Request) -> Response:
        """Caption a picture with a version of the model."""
        check_model(name, model)
        check_version(version, (await captioner.description())["model"]["version"])
        return await _reply(captioner, request)

    return router


async def _reply(captioner: Captioner, request: Request) -> Response:
    """The captions in the form that the request came in."""
    description = await captioner.description()
    held, options = await _content(request)
    if len(held) > 1:
        return await _several(captioner, description, request, held, options)
    content = held[0]
    json_length = request.headers.get(LENGTH_HEADER)
    kind = request.headers.get("content-type", "").lower()
    if isinstance(content, str) or (
        json_length is None and not _is_document(content, "json" in kind)
    ):
        return await _plain(captioner, description, content, options)
    document = {} if json_length is not None else parse_json(content)
    if "instances" in document:
        instances = document.pop("instances")
        options += _options(without_unread(document))
        return JSONResponse(await answer_predict(captioner, instances, options))
    if json_length is not None or ("inputs" in document and not is_hugging_face(document)):
        try:
            return await answer_infer(captioner, content, json_length, options)
        except GatewayError as error:
            return error_response(KSERVE_V2, error)  # its clients read `error` as text
    pictures, members = read_document(document)
    options += members.items()
    if "images" in document or "urls" in document or isinstance(document.get("inputs"), list):
        return await _several(captioner, description, request, pictures, options)
    return await _plain(captioner, description, pictures[0], options)


async def _plain(
    captioner: Captioner,
    description: Description,
    picture: Picture,
    options: Sequence[tuple[str, Any]],
) -> Response:
    """The captions of one picture, with their explanation if the options ask for it."""
    texts = option_texts(with_explanations(description), options)
    if asks_for_explanation(texts):
        return as_response(await captioner.explain(picture, texts))
    [result] = results_of(await captioner.caption([picture], texts))
    return JSONResponse(result.to_dict())


async def _several(
    captioner: Captioner,
    description: Description,
    request: Request,
    pictures: Sequence[Picture],
    options: Sequence[tuple[str, Any]],
) -> Response:
    """A result for each of several pictures: captions or an error."""
    known = with_explanations(description)
    texts = option_texts(known, options)
    if asks_for_explanation(texts):
        one_picture(pictures)
    outcomes = await captioner.caption(pictures, texts)
    return several_reply(request.url.path, outcomes, description["model"])


async def _content(request: Request) -> tuple[list[bytes | str], list[tuple[str, Any]]]:
    """The bytes of pictures or of JSON, or URLs, and the options of the query and of the form.

    Raises:
        GatewayError: The form cannot be read, or holds no picture.
    """
    options: list[tuple[str, Any]] = [*request.query_params.multi_items()]
    if not is_form(request):
        body = await request.body()
        if not holds_fields(request, body):
            picture = file_or_url(body)
            return [body if isinstance(picture, GatewayError) else picture], options
    pictures, fields = await read_form(request)
    held = [each for each in pictures if not isinstance(each, GatewayError)]
    if not held:
        raise GatewayError(
            400, "no_image", "the form holds no picture; send it as -F data=@photo.jpg"
        )
    return held, [*options, *fields]


def _is_document(content: bytes, declared: bool) -> bool:
    """Whether a body is JSON: programs declare pictures as JSON too, and JSON as anything."""
    if content[:64].lstrip().startswith((b"{", b"[")):
        return True
    try:
        return declared and bool(content.decode())
    except UnicodeDecodeError:
        return False


def _options(members: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Options beside KServe's `instances`, and those in `options` or `parameters`."""
    found: dict[str, Any] = {}
    for name, value in members.items():
        if name not in ("options", "parameters"):
            found[name] = value
        elif isinstance(value, dict):
            found.update(value)
        elif value is not None:
            raise GatewayError(400, "bad_json", f'"{name}" must be an object')
    return [*found.items()]
