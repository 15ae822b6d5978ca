"""KServe v1: `POST /v1/models/NAME:predict` with {"instances": [{"data": "<base64>"}]}.

The model's state, `GET /v1/models/NAME`, is served together with OpenAI's (`openai_chat.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict

from gateway.captioning.captioner import Captioner
from gateway.errors import GatewayError
from gateway.pictures.options import option_texts
from gateway.pictures.reading import PICTURE_NAMES, decode_base64, encoded, or_error
from gateway.routes.model_names import check_model
from gateway.routes.replies import PICTURE_ERRORS, PictureReply, check_any, errors, picture_reply

#: Members of an instance that nothing is done with: what a client notes for itself, and the class
#: that TorchServe's examples name for explanations.
_UNREAD = ("metadata", "target")


class PredictRequest(BaseModel):
    """Pictures, as base64 text or in objects with it, and options of all of them."""

    model_config = ConfigDict(extra="allow")
    instances: list[str | dict[str, Any]]
    parameters: dict[str, Any] | None = None


class PredictReply(BaseModel):
    """The captions of each picture, or its error."""

    predictions: list[PictureReply]


def routes(captioner: Captioner, model: str) -> APIRouter:
    """`POST /v1/models/NAME:predict`."""
    router = APIRouter(tags=["KServe v1"])

    @router.post(
        "/v1/models/{name}:predict", response_model=PredictReply, responses=errors(PICTURE_ERRORS)
    )
    async def predict(name: str, request: PredictRequest) -> Response:
        """Caption every instance; the status is 200 if one of them has captions."""
        check_model(name, model)
        options = (request.parameters or {}).items()
        return JSONResponse(await answer_predict(captioner, request.instances, options))

    return router


async def answer_predict(
    captioner: Captioner, instances: Any, options: Iterable[tuple[str, Any]]
) -> dict[str, Any]:
    """Caption every instance.

    Args:
        captioner: Captions the pictures.
        instances: The value of `instances` in the request.
        options: Names and values, for all of them.

    Raises:
        GatewayError: The request is wrong, or no instance gets a caption.
    """
    if not isinstance(instances, list):
        raise GatewayError(400, "no_image", '"instances" must be a list of pictures')
    texts = option_texts(await captioner.description(), options)
    pictures = [or_error(_picture, each, f"instances[{i}]") for i, each in enumerate(instances)]
    outcomes = await captioner.caption(pictures, texts)
    check_any(outcomes)
    return {"predictions": [picture_reply(each) for each in outcomes]}


def _picture(instance: Any, where: str) -> bytes:
    if not isinstance(instance, dict):
        return decode_base64(instance, where)
    members = {name: value for name, value in instance.items() if name not in _UNREAD}
    names = [name for name in PICTURE_NAMES if name in members]
    if "url" in members:
        raise GatewayError(
            400, "no_urls", f"{where} has a URL; on this route none is fetched; send the bytes"
        )
    if len(names) != 1 or len(members) != 1:
        raise GatewayError(
            400, "no_image", f'{where} must hold one "data" with a base64 picture, and no more'
        )
    return decode_base64(encoded(members[names[0]]), f"{where}.{names[0]}")
