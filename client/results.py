"""Typed results, made from the JSON of a server, and the errors it reports."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
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
        quality: How likely the caption is to be correct, 0..1; None from a server that does not
            estimate it.
    """

    caption: str
    confidence: float
    log_prob: float
    tokens: int
    finish_reason: str | None = None
    quality: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The caption in the form of the server's JSON."""
        return {
            name: value for name, value in dataclasses.asdict(self).items() if value is not None
        }


@dataclasses.dataclass(frozen=True)
class Ood:
    """How unusual a picture is beside those that the captioner was trained on.

    Attributes:
        score: Distance from them; about 1 for a usual picture.
        p_value: Share of usual pictures that are at least as unusual, above 0 and at most 1.
    """

    score: float
    p_value: float


@dataclasses.dataclass(frozen=True)
class CaptionResult:
    """The server's answer for one picture.

    Attributes:
        captions: At least one, best first.
        model: Name of the model that answered.
        version: Its version.
        warnings: What the server passed over in the picture, such as `truncated`.
        features: The image's feature, where it was asked for: `shape`, and `data`, which are
            numbers in lists or base64 text of float32, little-endian; else None.
        ood: How unusual the picture is, where that was asked for; else None.
        request_id: Of the request, for feedback on its captions; None over gRPC.
    """

    captions: tuple[Caption, ...]
    model: str
    version: str
    warnings: tuple[str, ...] = ()
    features: dict[str, Any] | None = None
    ood: Ood | None = None
    request_id: str | None = dataclasses.field(default=None, compare=False)

    @property
    def caption(self) -> str:
        """The best caption's text."""
        return self.captions[0].caption

    @property
    def confidence(self) -> float:
        """The best caption's confidence, 0..1."""
        return self.captions[0].confidence

    @property
    def quality(self) -> float | None:
        """How likely the best caption is to be correct, 0..1; None from an older server."""
        return self.captions[0].quality

    def to_dict(self) -> dict[str, Any]:
        """The reply in the form of the server's JSON."""
        return {
            "caption": self.caption,
            "confidence": self.confidence,
            **({} if self.quality is None else {"quality": self.quality}),
            "captions": [caption.to_dict() for caption in self.captions],
            **({"warnings": list(self.warnings)} if self.warnings else {}),
            **({} if self.features is None else {"features": self.features}),
            **({} if self.ood is None else {"ood": dataclasses.asdict(self.ood)}),
            "model": {"name": self.model, "version": self.version},
        }


def read_reply(
    status: int, body: bytes, retry_after: str | None = None, date: str | None = None
) -> CaptionResult:
    """A result from the body of a reply.

    Args:
        status: HTTP status; 200 for every gRPC reply, whose errors are in the body.
        body: JSON text: captions, our error object, or TorchServe's own error object.
        retry_after: The header `Retry-After`, if there is one: seconds, or a date.
        date: The header `Date`, if there is one: a date in `retry_after` is one of that clock.

    Raises:
        CaptionError: The body is an error, or not the reply of a captioner.
    """
    try:
        return _read_body(status, body)
    except CaptionError as error:
        if error.retry_after_seconds is None and retry_after is not None:
            error.retry_after_seconds = seconds_of(retry_after, date)
        raise


def seconds_of(retry_after: str, date: str | None) -> float | None:
    """The seconds that a header `Retry-After` names; None if it cannot be read.

    Args:
        retry_after: Seconds, or a date.
        date: The header `Date`, if there is one: a date in `retry_after` is one of that clock.
    """
    seconds = _seconds(retry_after)
    return _until(retry_after, date) if seconds is None else seconds


def _until(retry_after: str, date: str | None) -> float | None:
    """Seconds until an HTTP date, 0 if it has passed; None for anything else."""
    begin = _time(date) if date is not None else None
    end = _time(retry_after)
    if end is None:
        return None
    return max(0.0, (end - (begin or datetime.now(UTC))).total_seconds())


def _time(text: str) -> datetime | None:
    """The time of an HTTP date in any of its three forms (RFC 9110, section 5.6.7)."""
    try:
        found = parsedate_to_datetime(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _seconds(value: object) -> float | None:
    """Seconds to wait; None for anything else."""
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
        features = None if reply.get("features") is None else dict(reply["features"])
        ood = None
        if (given := reply.get("ood")) is not None:
            ood = Ood(float(given["score"]), float(given["p_value"]))
    except (KeyError, TypeError, ValueError):
        raise bad_reply(status, body) from None
    if not captions:
        raise bad_reply(status, body)
    return CaptionResult(captions, model, version, warnings, features, ood)


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
            _whole(error.get("code", "unknown")),
            _whole(error.get("message", "")),
            _seconds(error.get("retry_after_seconds")),
        )
    if "message" in reply and "code" in reply:
        return server_error(status, str(reply.get("type", "")), str(reply["message"]))
    return None


def _caption(fields: dict[str, Any]) -> Caption:
    """One caption from its JSON object; fields that are not known here are ignored."""
    return Caption(
        _whole(fields["caption"]),
        float(fields["confidence"]),
        float(fields["log_prob"]),
        int(fields["tokens"]),
        str(fields["finish_reason"]) if fields.get("finish_reason") is not None else None,
        float(fields["quality"]) if fields.get("quality") is not None else None,
    )


def _whole(text: object) -> str:
    """Text that can be printed: JSON may hold half a character, which becomes a question mark."""
    return str(text).encode(errors="replace").decode()


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
