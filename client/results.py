"""Typed results, made from the JSON of a server, and the errors it reports."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

from client.errors import CaptionError


@dataclasses.dataclass(frozen=True)
class Caption:
    """One caption of a picture.

    Attributes:
        caption: The text.
        confidence: exp of the mean log-probability of its tokens, 0..1.
        log_prob: Sum of the log-probabilities of its tokens.
        tokens: Number of its tokens, the end token included.
        finish_reason: `end`, or `length` where it was cut; None from an older server.
    """

    caption: str
    confidence: float
    log_prob: float
    tokens: int
    finish_reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The caption in the form of the server's JSON."""
        fields = dataclasses.asdict(self)
        if self.finish_reason is None:
            del fields["finish_reason"]
        return fields


@dataclasses.dataclass(frozen=True)
class CaptionResult:
    """The server's answer for one picture.

    Attributes:
        captions: At least one, best first.
        model: Name of the model that answered.
        version: Its version.
        warnings: What the server passed over in the picture, such as `truncated`.
    """

    captions: tuple[Caption, ...]
    model: str
    version: str
    warnings: tuple[str, ...] = ()

    @property
    def caption(self) -> str:
        """The best caption's text."""
        return self.captions[0].caption

    @property
    def confidence(self) -> float:
        """The best caption's confidence, 0..1."""
        return self.captions[0].confidence

    def to_dict(self) -> dict[str, Any]:
        """The reply in the form of the server's JSON."""
        return {
            "caption": self.caption,
            "confidence": self.confidence,
            "captions": [caption.to_dict() for caption in self.captions],
            **({"warnings": list(self.warnings)} if self.warnings else {}),
            "model": {"name": self.model, "version": self.version},
        }


def read_reply(status: int, body: bytes, retry_after: str | None = None) -> CaptionResult:
    """A result from the body of a reply.

    Args:
        status: HTTP status; 200 for every gRPC reply, whose errors are in the body.
        body: JSON text: captions, our error object, or TorchServe's own error object.
        retry_after: The header `Retry-After`, if there is one.

    Raises:
        CaptionError: The body is an error, or not the reply of a captioner.
    """
    try:
        return _read_body(status, body)
    except CaptionError as error:
        if error.retry_after_seconds is None and retry_after is not None:
            error.retry_after_seconds = _seconds(retry_after)
        raise


def _seconds(value: object) -> float | None:
    """Seconds to wait; None for anything else, such as the date that HTTP allows too."""
    try:
        seconds = float(str(value))
    except ValueError:
        return None
    return seconds if 0 <= seconds < math.inf else None


def _read_body(status: int, body: bytes) -> CaptionResult:
    if status == 413 and not body:  # TorchServe's own, over REST
        raise CaptionError(413, "request_too_large", "the request is over the server's size limit")
    try:
        reply = json.loads(body)
    except ValueError:
        raise bad_reply(status, body) from None
    if not isinstance(reply, dict):
        raise bad_reply(status, body)
    if error := reported_error(status, reply):
        raise error
    try:
        captions = tuple(_caption(each) for each in reply["captions"])
        model, version = str(reply["model"]["name"]), str(reply["model"]["version"])
        warnings = tuple(str(each) for each in reply.get("warnings", ()))
    except (KeyError, TypeError, ValueError):
        raise bad_reply(status, body) from None
    if not captions:
        raise bad_reply(status, body)
    return CaptionResult(captions, model, version, warnings)


def reported_error(status: int, reply: Mapping[str, Any]) -> CaptionError | None:
    """The error that a reply reports: our error object, or TorchServe's; None if there is none.

    Args:
        status: HTTP status; 200 for gRPC.
        reply: The JSON object of the reply.
    """
    error = reply.get("error")
    if isinstance(error, str):  # KServe v2, where the object has another name
        error = reply.get("detail")
    if isinstance(error, dict):
        given = error.get("status")
        if type(given) is not int:
            given = status if status >= 400 else 500
        return CaptionError(
            given,
            str(error.get("code", "unknown")),
            str(error.get("message", "")),
            _seconds(error.get("retry_after_seconds")),
        )
    if "message" in reply and "code" in reply:
        return server_error(status, str(reply.get("type", "")), str(reply["message"]))
    return None


def _caption(fields: dict[str, Any]) -> Caption:
    """One caption from its JSON object; fields that are not known here are ignored."""
    return Caption(
        str(fields["caption"]),
        float(fields["confidence"]),
        float(fields["log_prob"]),
        int(fields["tokens"]),
        str(fields["finish_reason"]) if fields.get("finish_reason") is not None else None,
    )


def bad_reply(status: int, body: bytes) -> CaptionError:
    """The error for a body that a captioner would not send."""
    return CaptionError(status, "bad_reply", f"not the reply of a captioner: {body[:80]!r}")


def server_error(status: int, kind: str, message: str) -> CaptionError:
    """The error for one that TorchServe itself reports.

    Args:
        status: HTTP status; 500 for gRPC's INTERNAL.
        kind: Name of TorchServe's exception, or empty.
        message: Its text.
    """
    if "has no worker to serve" in message:  # also said when the queue is full
        return CaptionError(503, "overloaded", "the server is overloaded or not ready; try later")
    if "Model not found" in message or "ModelNotFound" in kind:
        return CaptionError(404, "model_not_found", message)
    if "Version" in kind:
        return CaptionError(404, "version_not_found", message)
    return CaptionError(status, "server_error", message or kind)
