"""Replies of the gateway's own interface, as types that OpenAPI documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict

from client import CaptionResult
from gateway.captioning.captioner import Outcome
from gateway.errors import GatewayError, error_response


class Error(BaseModel):
    """Why there is no caption."""

    status: int
    code: str
    message: str
    retry_after_seconds: int | None = None


class ErrorReply(BaseModel):
    """The reply to a request that failed."""

    model_config = ConfigDict(extra="allow")
    error: Error


class TextErrorReply(BaseModel):
    """The reply to a request that failed, for clients that read `error` as text."""

    error: str
    detail: Error


class OneCaption(BaseModel):
    """One caption of a picture.

    `confidence` is exp of the mean log-probability of its tokens, 0 to 1; `log_prob` is their sum.
    `quality` is how likely the caption is right, 0 to 1, from a captioner that has learned it.
    `finish_reason` is `end`, or `length` where the caption was cut at `max_tokens`, or
    `characters` at `max_characters`.
    """

    caption: str
    confidence: float
    log_prob: float
    tokens: int
    finish_reason: str = ""
    quality: float | None = None


class Features(BaseModel):
    """The image's feature: numbers in lists as nested as the shape, or base64 of float32."""

    shape: list[int]
    data: list[Any] | str


class OodReply(BaseModel):
    """How unusual a picture is: its score, and what share of usual pictures is at least so."""

    score: float
    p_value: float


class PictureReply(BaseModel):
    """The captions of one picture, best first, or its error."""

    caption: str | None = None
    confidence: float | None = None
    captions: list[OneCaption] | None = None
    quality: float | None = None
    features: Features | None = None
    ood: OodReply | None = None
    error: Error | None = None


class Model(BaseModel):
    """The model that answered."""

    name: str
    version: str


class CaptionsReply(BaseModel):
    """What became of each picture, in the order of the request."""

    results: list[PictureReply]
    succeeded: int
    failed: int
    model: Model
    seconds: float


class DescriptionReply(BaseModel):
    """What the captioner accepts: options with their limits, formats, sizes."""

    model_config = ConfigDict(extra="allow")
    model: Model
    formats: list[str]
    max_pixels: int
    max_pictures: int
    options: dict[str, dict[str, Any]]


class StateReply(BaseModel):
    """Whether the gateway is alive or ready."""

    status: str


#: Errors that any request may get.
ANY_ERROR = {401: "key needed", 405: "wrong method", 500: "a fault of the server"}
#: Errors of a request that holds pictures, beside those.
PICTURE_ERRORS = {
    400: "no picture, not a picture, or an unknown option",
    404: "no such model",
    408: "the body came too slowly",
    413: "too many bytes, pixels or pictures",
    415: "an image format or encoding that is not accepted",
    422: "an option or a field with a bad value, or a URL that no picture was fetched from",
    429: "the client sends more pictures than it may",
    503: "overloaded, or the captioner is not ready",
    504: "no caption within the deadline",
}


def errors(
    *groups: dict[int, str], text: bool = False, either: bool = False
) -> dict[int | str, dict[str, Any]]:
    """Documentation of error replies, for `responses=` of a route.

    Args:
        groups: Status -> when it is answered.
        text: Whether the route's clients read `error` as text.
        either: Whether some of them do.
    """
    model: Any = TextErrorReply if text else ErrorReply
    if either:
        model = ErrorReply | TextErrorReply
    return {
        status: {"model": model, "description": meaning}
        for group in ({404: "not found"}, ANY_ERROR, *groups)
        for status, meaning in group.items()
    }


def picture_reply(outcome: Outcome) -> dict[str, Any]:
    """The captions of one picture, or its error."""
    if isinstance(outcome, GatewayError):
        return {"error": outcome.to_dict()}
    found = outcome.to_dict()
    del found["model"]  # stands once, beside the results
    return found


def check_any(outcomes: Sequence[Outcome]) -> None:
    """Let the request fail where each of its pictures has.

    Raises:
        GatewayError: The error of the first one, with its place if there are several.
    """
    if all(isinstance(each, GatewayError) for each in outcomes):
        results_of(outcomes)


def several_reply(
    path: str, outcomes: Sequence[Outcome], model: Mapping[str, Any], **more: Any
) -> Response:
    """A result for each picture, and how many have captions.

    The status is 200 if a picture was captioned. If all failed it is the status of the first error,
    which then stands under `error` too.

    Args:
        path: Of the request.
        outcomes: Of its pictures.
        model: Name and version of the captioner, if none of them has a caption, which names it.
        more: Other fields of the reply.
    """
    failures = [each for each in outcomes if isinstance(each, GatewayError)]
    for each in outcomes:
        if not isinstance(each, GatewayError):
            model = {"name": each.model, "version": each.version}
            break
    body = {
        "results": [picture_reply(each) for each in outcomes],
        "succeeded": len(outcomes) - len(failures),
        "failed": len(failures),
        "model": model,
        **more,
    }
    if len(failures) == len(outcomes):
        return error_response(path, failures[0], body)
    return JSONResponse(body)


def results_of(outcomes: Sequence[Outcome]) -> list[CaptionResult]:
    """The captions of every picture, for interfaces that have no error for each picture.

    Raises:
        GatewayError: The first error of a picture, with its place if there are several.
    """
    found: list[CaptionResult] = []
    for index, outcome in enumerate(outcomes):
        if isinstance(outcome, GatewayError):
            if len(outcomes) == 1:
                raise outcome
            message = f"picture [{index}]: {outcome.detail}"
            raise GatewayError(outcome.status_code, outcome.code, message, outcome.retry_after)
        found.append(outcome)
    return found
