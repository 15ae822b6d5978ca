"""Why a request gets no caption: every error code with its HTTP status, and the error object.

gRPC carries no status for each request, so the error object repeats the status. In the KServe
protocol v2 an error is text: clients fail on an object there. Its replies have the error object
under another name.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from typing import Any

from handler.requests.caption_request import Form, RequestRefusal
from model.image.refusals import ImageRefusal
from model.options import BadOption, UnknownOption
from model.refusal import Refusal

logger = logging.getLogger(__name__)

#: Error code -> HTTP status. Codes are for programs; people read the message.
STATUSES = {
    "no_image": 400,
    "bad_json": 400,
    "bad_base64": 400,
    "bad_request": 400,
    "no_explanations": 400,
    "no_urls": 400,
    "unknown_option": 400,
    "empty": 400,
    "image_undecodable": 400,
    "image_too_large": 413,
    "too_many_images": 413,
    "image_format": 415,
    "bad_option": 422,
    "internal": 500,
    "overloaded": 503,
    "deadline": 504,
}
#: HTTP status -> reason phrase. Only these constants are sent: a line break in a phrase would end
#: the worker.
PHRASES = {
    200: "OK",
    400: "Bad Request",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    500: "Internal Server Error",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why a request gets no caption.

    Attributes:
        code: A key of `STATUSES`, such as `image_undecodable`.
        message: A sentence for people: what was wrong, the value, the limit, what to do.
        retry_after_seconds: When the same request may be sent again; None if that is of no use.
    """

    code: str
    message: str
    retry_after_seconds: int | None = None

    @property
    def status(self) -> int:
        """The HTTP status of the code."""
        return STATUSES[self.code]

    def body(self, form: Form = Form.PLAIN) -> str:
        """The reply as JSON text, with the error object in the place that the form has for it.

        Args:
            form: The form that the request came in.
        """
        if form is Form.KSERVE_V2:
            return json.dumps({"error": self.message, "detail": self.fields()})
        return json.dumps({"error": self.fields()})

    def fields(self) -> dict[str, Any]:
        """The error object."""
        error: dict[str, Any] = {"status": self.status, "code": self.code, "message": self.message}
        if self.retry_after_seconds is not None:
            error["retry_after_seconds"] = self.retry_after_seconds
        return error


def failure_of(error: Exception) -> Failure:
    """The failure to report for an exception.

    A refusal tells the user what to change. Any other exception is a fault of the server: its
    traceback is logged, and the user gets no detail of it.

    Args:
        error: The exception that is being handled.
    """
    match error:
        case RequestRefusal():
            return Failure(error.code, str(error), error.retry_after_seconds)
        case ImageRefusal():
            return Failure(error.code, str(error))
        case BadOption():
            return Failure("bad_option", str(error))
        case UnknownOption():
            return Failure("unknown_option", str(error))
        case Refusal():
            return Failure("bad_request", str(error))
    logger.error("a request met a fault of the server", exc_info=error)
    return Failure("internal", "this request met a fault of the server; its log has the details")
