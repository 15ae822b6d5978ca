"""The reply to a request that was captioned: JSON in the form that the request came in.

REST and gRPC send the same text. It is serialised here, strictly, because a value that TorchServe
cannot serialise would fail the whole batch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from handler.replies.extras import feature_fields
from handler.replies.failure import Failure
from handler.request_result import ImageOod, ImageResult, RequestResult
from handler.requests.caption_request import CaptionRequest, Extras, Form
from model.artifact import GeneratedCaption


def reply_body(
    request: CaptionRequest,
    images: Sequence[ImageResult],
    name: str,
    version: str,
    explanation: Mapping[str, Any] | None = None,
) -> str:
    """The captions of a request's pictures as JSON text, in the form the request came in.

    Args:
        request: What was asked, in any form but `DESCRIPTION`.
        images: Its images, at least one of them captioned; the others have a failure.
        name: The model's name in this server.
        version: The version of the archive.
        explanation: That of the only picture, in the plain form, as JSON fields.

    Raises:
        ValueError: A number that JSON cannot express, such as NaN.
    """
    model = {"name": name, "version": version}
    if request.form is Form.KSERVE_V2:
        reply: dict[str, Any] = {"model_name": name, "model_version": version}
        if request.id is not None:
            reply["id"] = request.id
        return to_json({**reply, "outputs": _tensors(images, request.extras)})
    each = [picture_fields(image, request.extras) for image in images]
    if request.form is Form.KSERVE_V1:
        return to_json({"predictions": each})
    if request.form is Form.SEVERAL:
        return to_json({**_results(images, request.extras), "model": model})
    more = {} if explanation is None else {"explanation": explanation}
    return to_json({**each[0], **more, "model": model})


def failed_body(failure: Failure, result: RequestResult) -> str:
    """The reply to a request that failed, with the object that says why.

    Where each of several pictures has failed, every one has its own error too.
    """
    if result.form is not Form.SEVERAL or not result.images or result.request is None:
        return failure.body(result.form)
    results = _results(result.images, result.request.extras)
    return to_json({**json.loads(failure.body()), **results})


def to_json(value: object) -> str:
    """JSON text.

    Raises:
        ValueError: A number that JSON cannot express; Python would write `NaN`, which clients
            cannot read.
    """
    return json.dumps(value, allow_nan=False)


def _results(images: Sequence[ImageResult], extras: Extras) -> dict[str, Any]:
    """A result for each picture, a caption or an error, and how many there are of both."""
    failed = sum(image.failure is not None for image in images)
    return {
        "results": [picture_fields(image, extras) for image in images],
        "succeeded": len(images) - failed,
        "failed": failed,
    }


def picture_fields(image: ImageResult, extras: Extras) -> dict[str, Any]:
    """The captions of one picture, best first, or its error."""
    if image.failure is not None:
        return {"error": image.failure.fields()}
    best = image.captions[0]
    picture: dict[str, Any] = {
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
            for caption in image.captions
        ],
    }
    if image.warnings:
        picture["warnings"] = list(image.warnings)
    if extras.features is not None and image.features is not None:
        picture["features"] = feature_fields(image.features, extras)
    if extras.ood and image.ood is not None:
        picture["ood"] = image.ood.fields()
    return picture


def _tensors(images: Sequence[ImageResult], extras: Extras) -> list[dict[str, Any]]:
    """KServe v2's output tensors: a row for each picture and a column for each caption.

    A picture that failed has a row without text. Which ones, and why, is in the tensor `error`,
    which is there only where one has.
    """
    columns = max(len(image.captions) for image in images)
    shape = [len(images), columns]
    values: dict[str, tuple[str, list[Any]]] = {
        "caption": ("BYTES", []),
        "confidence": ("FP32", []),
        "log_prob": ("FP32", []),
        "tokens": ("INT64", []),
        "finish_reason": ("BYTES", []),
    }
    for image in images:
        rows: list[tuple[Any, ...]] = [
            (each.text, each.confidence, each.log_prob, each.tokens, each.finish_reason)
            for each in image.captions
        ]
        for row in rows or [("", 0.0, 0.0, 0, "error")] * columns:
            for (_, data), value in zip(values.values(), row, strict=True):
                data.append(value)
    judged = [each.quality for image in images for each in image.captions]
    if None not in judged:
        filled = [[each.quality for each in image.captions] or [0.0] * columns for image in images]
        values["quality"] = ("FP32", [quality for row in filled for quality in row])
    tensors = [_tensor(name, kind, shape, data) for name, (kind, data) in values.items()]
    if any(image.warnings for image in images):
        joined = [",".join(image.warnings) for image in images]
        tensors.append(_tensor("warnings", "BYTES", [len(images)], joined))
    if any(image.failure for image in images):
        errors = [to_json(each.failure.fields()) if each.failure else "" for each in images]
        tensors.append(_tensor("error", "BYTES", [len(images)], errors))
    if extras.features is not None:
        found = [image.features for image in images if image.features is not None]
        rows_of = [
            feature_fields(found[0].new_zeros(found[0].shape) if each is None else each, extras)
            for each in (image.features for image in images)
        ]
        kind = "FP32" if extras.features == "list" else "BYTES"
        size = [len(images), *(found[0].shape if kind == "FP32" else ())]
        tensors.append(_tensor("features", kind, size, [row["data"] for row in rows_of]))
    if extras.ood:  # a picture that failed is said to be usual; `error` has its reason
        each_ood = [image.ood or ImageOod(0.0, 1.0) for image in images]
        for name in ("score", "p_value"):
            data = [each.fields()[name] for each in each_ood]
            tensors.append(_tensor(f"ood_{name}", "FP32", [len(images)], data))
    return tensors


def _tensor(name: str, datatype: str, shape: Sequence[int], data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape), "data": data}


def _quality(caption: GeneratedCaption) -> dict[str, float]:
    """The field `quality`, which a captioner without a quality head leaves out."""
    return {} if caption.quality is None else {"quality": round(caption.quality, 6)}
