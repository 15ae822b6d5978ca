"""Typed results, and how a server's JSON becomes one, or an error."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from client.errors import CaptionError


@dataclasses.dataclass(frozen=True)
class Caption:
    """One caption of a picture.

    Attributes:
        caption: The text.
        confidence: exp of the mean log-probability of its tokens, 0..1.
        log_prob: Sum of the log-probabilities of its tokens.
        tokens: How many tokens it has, the end token included.
    """

    caption: str
    confidence: float
    log_prob: float
    tokens: int


@dataclasses.dataclass(frozen=True)
class CaptionResult:
    """What the server says about one picture.

    Attributes:
        captions: At least one, best first.
        model: Name of the model that answered.
        version: Its version.
    """

    captions: tuple[Caption, ...]
    model: str
    version: str

    @property
    def caption(self) -> str:
        """The best caption's text."""
        return self.captions[0].caption

    @property
    def confidence(self) -> float:
        """The best caption's confidence, 0..1."""
        return self.captions[0].confidence

    def to_dict(self) -> dict[str, Any]:
        """The reply as the server's JSON has it."""
        return {
            "caption": self.caption,
            "confidence": self.confidence,
            "captions": [dataclasses.asdict(caption) for caption in self.captions],
            "model": {"name": self.model, "version": self.version},
        }


def read_reply(status: int, body: bytes) -> CaptionResult:
    """A result from the body of a reply.

    Args:
        status: HTTP status; 200 for every gRPC reply, whose errors are in the body.
        body: JSON text: captions, our error object, or TorchServe's own error object.

    Raises:
        CaptionError: The body is an error, or no reply of a captioner.
    """
    if status == 413 and not body:  # TorchServe says nothing more
        raise CaptionError(413, "request_too_large", "the request is over the server's size limit")
    try:
        reply = json.loads(body)
    except ValueError:
        raise CaptionError(status, "bad_reply", f"no reply of a captioner: {body[:80]!r}") from None
    if not isinstance(reply, dict):
        raise CaptionError(status, "bad_reply", f"no reply of a captioner: {body[:80]!r}")
    if isinstance(reply.get("error"), dict):
        error = reply["error"]
        raise CaptionError(
            int(error.get("status", status)),
            str(error.get("code", "unknown")),
            str(error.get("message", "")),
        )
    if "message" in reply and "code" in reply:
        raise server_error(status, str(reply.get("type", "")), str(reply["message"]))
    try:
        captions = tuple(Caption(**each) for each in reply["captions"])
        captions[0]
        return CaptionResult(captions, reply["model"]["name"], reply["model"]["version"])
    except (KeyError, TypeError, IndexError):
        raise CaptionError(status, "bad_reply", f"no reply of a captioner: {body[:80]!r}") from None


def server_error(status: int, kind: str, message: str) -> CaptionError:
    """An error that TorchServe raised before or instead of the captioner.

    Args:
        status: HTTP status, or 500 where gRPC only says INTERNAL.
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
