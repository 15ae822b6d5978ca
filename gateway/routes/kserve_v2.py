"""KServe v2 (Open Inference Protocol) over HTTP, with binary tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict

from gateway import __version__
from gateway.captioning.captioner import Captioner
from gateway.pictures.options import option_texts
from gateway.routes.kserve_tensors import LENGTH_HEADER, OUTPUTS, InferRequest, infer_reply
from gateway.routes.model_names import check_model
from gateway.routes.replies import PICTURE_ERRORS, check_any, errors
from gateway.routes.state import NOT_READY, check_ready

MODEL = "/v2/models/{name}"
VERSION = f"{MODEL}/versions/{{version}}"
_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["inputs"],
                "properties": {
                    "id": {"type": "string"},
                    "parameters": {"type": "object"},
                    "inputs": {
                        "type": "array",
                        "minItems": 1,
                        "items": {
                            "type": "object",
                            "required": ["name", "shape", "datatype"],
                            "properties": {
                                "name": {"type": "string"},
                                "shape": {
                                    "anyOf": [
                                        {"type": "array", "items": {"type": "integer"}},
                                        {"type": "integer", "enum": [-1]},
                                    ]
                                },
                                "datatype": {"type": "string", "enum": ["BYTES"]},
                                "data": {"type": "array", "items": {"type": "string"}},
                                "parameters": {"type": "object"},
                            },
                        },
                    },
                    "outputs": {"type": "array", "items": {"type": "object"}},
                },
            }
        },
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    },
}


class StatusReply(BaseModel):
    """Always true: what is not live or ready is an error."""

    model_config = ConfigDict(extra="allow")


class ServerReply(BaseModel):
    """The server's metadata."""

    name: str
    version: str
    extensions: list[str]


class TensorReply(BaseModel):
    """A tensor's metadata; -1 is any length."""

    name: str
    datatype: str
    shape: list[int]


class ModelReply(BaseModel):
    """The model's metadata."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorReply]
    outputs: list[TensorReply]


class InferReply(BaseModel):
    """Output tensors, each with a row for each picture and a column for each caption."""

    model_config = ConfigDict(extra="allow")
    model_name: str
    model_version: str
    outputs: list[dict[str, Any]]


def routes(captioner: Captioner, model: str) -> APIRouter:
    """Health, metadata and inference of the protocol."""
    router = APIRouter(tags=["KServe v2"])
    text = errors(text=True)
    not_ready = errors(NOT_READY, text=True)
    inference: dict[str, Any] = {
        "response_model": InferReply,
        "responses": {
            **errors(PICTURE_ERRORS, text=True),
            200: {
                "model": InferReply,
                "content": {"application/octet-stream": {}},
                "description": "JSON, followed by the bytes of the tensors in binary form",
            },
        },
        "openapi_extra": {"requestBody": _BODY},
    }

    async def check_version(name: str, version: str | None) -> dict[str, Any]:
        """The model's name and version, if both are served."""
        check_model(name, model)
        found: dict[str, Any] = (await captioner.description())["model"]
        if version is not None:
            check_model(f"{name}/{version}", f"{model}/{found['version']}")
        return found

    @router.get("/v2", response_model=ServerReply, responses=text)
    async def server() -> Response:
        """The server's metadata."""
        extensions = ["binary_tensor_data"]
        return JSONResponse({"name": "clipcap", "version": __version__, "extensions": extensions})

    @router.get("/v2/health/live", response_model=StatusReply, responses=text)
    async def live() -> Response:
        """The gateway answers."""
        return JSONResponse({"live": True})

    @router.get("/v2/health/ready", response_model=StatusReply, responses=not_ready)
    async def ready() -> Response:
        """A worker is ready and captions."""
        await check_ready(captioner)
        return JSONResponse({"ready": True})

    async def ready_reply(name: str, version: str | None = None) -> Response:
        await check_version(name, version)
        await check_ready(captioner)
        return JSONResponse({"name": name, "ready": True})

    async def metadata_reply(name: str, version: str | None = None) -> Response:
        found = await check_version(name, version)
        outputs = [
            {"name": output, "datatype": datatype, "shape": [-1, -1]}
            for output, datatype in OUTPUTS.items()
        ]
        return JSONResponse(
            {
                "name": name,
                "versions": [found["version"]],
                "platform": "pytorch_torchscript",
                "inputs": [{"name": "image", "datatype": "BYTES", "shape": [-1]}],
                "outputs": outputs,
            }
        )

    async def infer_response(request: Request, name: str, version: str | None = None) -> Response:
        await check_version(name, version)
        json_length = request.headers.get(LENGTH_HEADER)
        return await answer_infer(captioner, await request.body(), json_length)

    @router.get(MODEL, response_model=ModelReply, responses=not_ready)
    async def metadata(name: str) -> Response:
        """The tensors that the model takes and gives."""
        return await metadata_reply(name)

    @router.get(VERSION, response_model=ModelReply, responses=not_ready)
    async def metadata_of_version(name: str, version: str) -> Response:
        """The tensors that a version of the model takes and gives."""
        return await metadata_reply(name, version)

    @router.get(f"{MODEL}/ready", response_model=StatusReply, responses=not_ready)
    async def model_ready(name: str) -> Response:
        """The model is served, and a worker is ready and captions."""
        return await ready_reply(name)

    @router.get(f"{VERSION}/ready", response_model=StatusReply, responses=not_ready)
    async def version_ready(name: str, version: str) -> Response:
        """The version is served, and a worker is ready and captions."""
        return await ready_reply(name, version)

    @router.post(f"{MODEL}/infer", **inference)
    async def infer(name: str, request: Request) -> Response:
        """Caption the pictures of the input tensors, in base64 or binary form."""
        return await infer_response(request, name)

    @router.post(f"{VERSION}/infer", **inference)
    async def infer_version(name: str, version: str, request: Request) -> Response:
        """Caption with a version of the model."""
        return await infer_response(request, name, version)

    return router


async def answer_infer(
    captioner: Captioner,
    body: bytes,
    json_length: str | None,
    options: Sequence[tuple[str, Any]] = (),
) -> Response:
    """Caption the pictures of the input tensors.

    Args:
        captioner: Captions the pictures.
        body: JSON, and perhaps the bytes of tensors behind it.
        json_length: The value of `LENGTH_HEADER`, if the request has it.
        options: Names and values beside those of the body.

    Raises:
        GatewayError: The request is wrong, or no picture gets a caption.
    """
    description = await captioner.description()
    read = InferRequest(body, json_length)
    texts = option_texts(description, [*options, *read.options])
    outcomes = await captioner.caption(read.pictures, texts)
    check_any(outcomes)
    content, length = infer_reply(read, outcomes, description["model"])
    if length is None:
        return Response(content, media_type="application/json")
    headers = {LENGTH_HEADER: str(length)}
    return Response(content, headers=headers, media_type="application/octet-stream")
