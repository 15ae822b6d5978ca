"""The reply to a request that was captioned: JSON in the form that the request came in.

REST and gRPC send the same text. It is serialised here, strictly, because a value that TorchServe
cannot serialise would fail the whole batch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from handler.caption_request import CaptionRequest, Form
from model.artifact import GeneratedCaption

#: The captions of one picture, best first.
PictureCaptions = Sequence[GeneratedCaption]


def reply_body(
    request: CaptionRequest,
    pictures: Sequence[PictureCaptions],
    warnings: Sequence[Sequence[str]],
    name: str,
    version: str,
) -> str:
    """The captions of a request's pictures as JSON text, in the form the request came in.

    Args:
        request: What was asked, in any form but `DESCRIPTION`.
        pictures: For each picture of the request its captions.
        warnings: For each picture what is wrong with its file without making it unusable. The
            reply has a field `warnings` only where there are any.
        name: The model's name in this server.
        version: The version of the archive.

    Raises:
        ValueError: A number that JSON cannot express, such as NaN.
    """
    model = {"name": name, "version": version}
    if request.form is Form.PLAIN:
        return to_json({**_picture(pictures[0], warnings[0]), "model": model})
    if request.form is Form.KSERVE_V1:
        each = map(_picture, pictures, warnings)
        return to_json({"predictions": list(each)})
    shape = [len(pictures), len(pictures[0])]
    flat = [caption for captions in pictures for caption in captions]
    tensors: dict[str, tuple[str, Sequence[Any]]] = {
        "caption": ("BYTES", [caption.text for caption in flat]),
        "confidence": ("FP32", [caption.confidence for caption in flat]),
        "log_prob": ("FP32", [caption.log_prob for caption in flat]),
        "tokens": ("INT64", [caption.tokens for caption in flat]),
        "finish_reason": ("BYTES", [caption.finish_reason for caption in flat]),
    }
    qualities = [caption.quality for caption in flat if caption.quality is not None]
    if len(qualities) == len(flat):
        tensors["quality"] = ("FP32", qualities)
    reply: dict[str, Any] = {"model_name": name, "model_version": version}
    if request.id is not None:
        reply["id"] = request.id
    reply["outputs"] = [
        {"name": tensor, "datatype": datatype, "shape": shape, "data": list(data)}
        for tensor, (datatype, data) in tensors.items()
    ]
    if any(warnings):
        joined = [",".join(of_picture) for of_picture in warnings]
        reply["outputs"].append(
            {"name": "warnings", "datatype": "BYTES", "shape": [len(joined)], "data": joined}
        )
    return to_json(reply)


def to_json(value: object) -> str:
    """JSON text.

    Raises:
        ValueError: A number that JSON cannot express; Python would write `NaN`, which clients
            cannot read.
    """
    return json.dumps(value, allow_nan=False)


def _picture(captions: PictureCaptions, warnings: Sequence[str]) -> dict[str, Any]:
    """The captions of one picture; `quality` is there only if the captioner has a quality head."""
    best = captions[0]
    picture = {
        "caption": best.text,
        "confidence": round(best.confidence, 6),
        **_quality(best),
        "captions": [
            {
                "caption": caption.text,
                "confidence": round(caption.confidence, 6),
                **_quality(caption),
                "log_prob": round(caption.log_prob, 6),
                "tokens": caption.tokens,
                "finish_reason": caption.finish_reason,
            }
            for caption in captions
        ],
    }
    return {**picture, "warnings": list(warnings)} if warnings else picture


def _quality(caption: GeneratedCaption) -> dict[str, float]:
    return {} if caption.quality is None else {"quality": round(caption.quality, 6)}
