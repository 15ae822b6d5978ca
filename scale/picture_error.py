"""Why a picture has no caption: a code and a message, as in the REST contract.

Codes of decoding are those of `handler.replies.failure`. Reading a picture has codes that
the clients and the gateway have as well: `unreadable_file`, `fetch_failed`, `request_too_large`,
and `worker_failed` for a picture that ends the process which decodes it.
"""

from __future__ import annotations

import dataclasses

from handler.replies.failure import failure_of


@dataclasses.dataclass(frozen=True)
class PictureError:
    """Why a picture has no caption.

    Attributes:
        code: For programs.
        message: A sentence for people: what was wrong, the value, the limit, what to do.
    """

    code: str
    message: str


def error_of(error: Exception) -> PictureError:
    """The error of a picture for an exception that decoding or captioning it raised."""
    failure = failure_of(error)
    return PictureError(failure.code, failure.message)


def worker_failed() -> PictureError:
    """The error of a picture that ended the process which decoded it, again and again."""
    return PictureError(
        "worker_failed",
        "the process that decoded this picture ended each time it was tried; the picture may be "
        "the cause: open it in a viewer, or save it again",
    )
