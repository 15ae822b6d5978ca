"""What a program says of a caption, and what the gateway answers."""

from __future__ import annotations

import dataclasses
import json

from client.errors import CaptionError
from client.results import CaptionResult, bad_reply, reported_error, seconds_of


@dataclasses.dataclass(frozen=True)
class Feedback:
    """What the gateway has stored of this client about a caption.

    Attributes:
        caption: The text that it is about.
        thumbs: `up`, `down` or None.
        correction: The better caption, or None.
        picture_kept: Whether the picture is stored, to train on.
        replaced: Whether this took the place of an earlier feedback.
    """

    caption: str
    thumbs: str | None
    correction: str | None
    picture_kept: bool
    replaced: bool


def feedback_fields(
    of: CaptionResult | str,
    picture_index: int,
    caption_index: int,
    thumbs: str | None,
    correction: str | None,
) -> dict[str, str]:
    """The fields of a feedback, as they are sent.

    Raises:
        ValueError: The result has no id of its request, because it did not come over HTTP.
    """
    request_id = of.request_id if isinstance(of, CaptionResult) else of
    if not request_id:
        raise ValueError("the result has no request id; feedback is for captions of a gateway")
    given = {"thumbs": thumbs, "correction": correction}
    return {
        "request_id": request_id,
        "picture_index": str(picture_index),
        "caption_index": str(caption_index),
        **{name: text for name, text in given.items() if text is not None},
    }


def read_feedback(status: int, body: bytes, retry_after: str | None, date: str | None) -> Feedback:
    """The reply to a feedback.

    Args:
        status: HTTP status.
        body: JSON text.
        retry_after: The header `Retry-After`, if there is one.
        date: The header `Date`, if there is one.

    Raises:
        CaptionError: The gateway did not take it, or the body is not its reply.
    """
    try:
        reply = json.loads(body)
        error = reported_error(status, reply)
    except (ValueError, AttributeError):
        raise bad_reply(status, body) from None
    if error is not None:
        if error.retry_after_seconds is None and retry_after is not None:
            error.retry_after_seconds = seconds_of(retry_after, date)
        raise error
    try:
        return Feedback(**{field.name: reply[field.name] for field in dataclasses.fields(Feedback)})
    except (KeyError, TypeError):
        raise bad_reply(status, body) from None


def no_feedback(address: str) -> CaptionError:
    """The error of a transport that has no feedback."""
    return CaptionError(
        0, "no_feedback", f"{address} takes no feedback; give the address of a gateway, http://..."
    )
