"""What goes back to the client: captions or one error, as the JSON of the form that was asked.

The same bodies go out over REST and gRPC; gRPC carries no status per request, so the error object
repeats it. Everything is serialised here, strictly, because one reply that TorchServe cannot
serialise fails its whole batch.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from handler.caption_request import CaptionRequest, Form, RequestRefusal
from model.artifact import GeneratedCaption
from model.image.refusals import ImageRefusal
from model.options import BadOption, UnknownOption
from model.refusal import Refusal

#: HTTP reason phrases. Only these constants are sent: a line break in a phrase kills the worker.
PHRASES = {
    200: "OK",
    400: "Bad Request",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    500: "Internal Server Error",
    504: "Gateway Timeout",
}


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why a request gets no caption.

    Attributes:
        status: HTTP status; a key of `PHRASES`.
        code: A word for programs, such as `image_undecodable`.
        message: A sentence for people: what was wrong, the value, the limit, what to do.
    """

    status: int
    code: str
    message: str

    @classmethod
    def of(cls, refusal: Refusal, place: int | None = None) -> Failure:
        """The failure that a refusal stands for.

        Args:
            refusal: What a request, a picture or an option was refused with.
            place: Which picture of its request it is about, where there are several.
        """
        message = str(refusal) if place is None else f"picture [{place}]: {refusal}"
        match refusal:
            case ImageRefusal() | RequestRefusal():
                return cls(refusal.status, refusal.code, message)
            case BadOption():
                return cls(422, "bad_option", message)
            case UnknownOption():
                return cls(400, "unknown_option", message)
            case _:
                return cls(400, "bad_request", message)

    def body(self) -> str:
        """The error object as JSON text."""
        return to_json({"error": dataclasses.asdict(self)})


#: The captions of one picture, best first.
PictureCaptions = Sequence[GeneratedCaption]


def reply_body(
    request: CaptionRequest, pictures: Sequence[PictureCaptions], name: str, version: str
) -> str:
    """The captions of a request's pictures as JSON text, in the form the request came in.

    Args:
        request: What was asked.
        pictures: For each picture of the request its captions.
        name: The model's name in this server.
        version: The version of the archive.
    """
    model = {"name": name, "version": version}
    if request.form is Form.PLAIN:
        return to_json({**_picture(pictures[0]), "model": model})
    if request.form is Form.KSERVE_V1:
        return to_json({"predictions": [_picture(captions) for captions in pictures]})
    shape = [len(pictures), len(pictures[0])]
    flat = [caption for captions in pictures for caption in captions]
    tensors = {
        "caption": ("BYTES", [caption.text for caption in flat]),
        "confidence": ("FP32", [caption.confidence for caption in flat]),
        "log_prob": ("FP32", [caption.log_prob for caption in flat]),
        "tokens": ("INT64", [caption.tokens for caption in flat]),
    }
    reply: dict[str, Any] = {"model_name": name, "model_version": version}
    if request.id is not None:
        reply["id"] = request.id
    reply["outputs"] = [
        {"name": tensor, "datatype": datatype, "shape": shape, "data": data}
        for tensor, (datatype, data) in tensors.items()
    ]
    return to_json(reply)


def to_json(value: object) -> str:
    """JSON text; a number that JSON cannot hold is an error here, not in the client."""
    return json.dumps(value, allow_nan=False)


def _picture(captions: PictureCaptions) -> dict[str, Any]:
    best = captions[0]
    return {
        "caption": best.text,
        "confidence": round(best.confidence, 6),
        "captions": [
            {
                "caption": caption.text,
                "confidence": round(caption.confidence, 6),
                "log_prob": round(caption.log_prob, 6),
                "tokens": caption.tokens,
            }
            for caption in captions
        ],
    }
