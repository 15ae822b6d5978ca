"""Reads the JSON forms of a request: our own, and the KServe protocols v1 and v2.

Ours:       {"image": "<base64>", "options": {"num_beams": 5}}
KServe v1:  {"instances": [{"data": "<base64>"}, ...], "parameters": {...}}
KServe v2:  {"inputs": [{"name": ..., "shape": [1], "datatype": "BYTES", "data": ["<base64>"]}]}

TorchServe has routes for both protocols, but its own readers of them fail the whole batch when one
request is wrong. So they are read here, each request alone. Options are fields beside the picture,
or members of an object `options` or `parameters`.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterator, Mapping
from typing import Any

from handler.caption_request import HOW_TO_SEND, CaptionRequest, Form, RequestRefusal
from model.options import GenerationOptions

#: Fields of a KServe v2 input tensor.
TENSOR_FIELDS = ("name", "shape", "datatype", "data", "parameters")
#: Most dimensions of a KServe tensor.
MAX_DIMENSIONS = 5


def parse_document(document: Any, options: GenerationOptions, max_pictures: int) -> CaptionRequest:
    """Read a parsed JSON document.

    Args:
        document: Any JSON value.
        options: Options where the document gives none.
        max_pictures: Pictures that one KServe request may hold.

    Raises:
        RequestRefusal: It holds no picture, too many, or has the wrong structure.
        UnknownOption: It gives an option that does not exist.
        BadOption: It gives an option a value it cannot take.
    """
    if not isinstance(document, Mapping):
        raise RequestRefusal(
            "bad_json",
            f"the JSON body is {_kind(document)}; it must be an object; {HOW_TO_SEND}",
        )
    fields = dict(document)
    if "instances" in fields:
        return _parse_v1(fields, options, max_pictures)
    if "inputs" in fields:
        return _parse_v2(fields, options, max_pictures)
    if "image" not in fields:
        raise RequestRefusal("no_image", f'the JSON body has no "image"; {HOW_TO_SEND}')
    picture = _decode_base64(fields.pop("image"), "image")
    return CaptionRequest([picture], [_merge(options, fields)])


def _parse_v1(
    fields: dict[str, Any], options: GenerationOptions, max_pictures: int
) -> CaptionRequest:
    """KServe v1: {"instances": [{"data": "<base64>"}, ...], "parameters": {...}}."""
    instances = fields.pop("instances")
    fields.pop("signature_name", None)  # of TensorFlow Serving's clients; there is only one
    options = _merge(options, fields)
    _check_count(instances, "instances", max_pictures)
    pictures, options_of_each = [], []
    for index, instance in enumerate(instances):
        where = f"instances[{index}]"
        members = dict(instance) if isinstance(instance, Mapping) else {"data": instance}
        names = [name for name in ("data", "image", "b64") if name in members]
        if len(names) != 1:
            raise RequestRefusal("no_image", f'{where} must hold one "data" with a base64 picture')
        value = members.pop(names[0])
        if isinstance(value, Mapping) and set(value) == {"b64"}:
            value = value["b64"]
        pictures.append(_decode_base64(value, f"{where}.{names[0]}"))
        options_of_each.append(_merge(options, members))
    return CaptionRequest(pictures, options_of_each, Form.KSERVE_V1)


def _parse_v2(
    fields: dict[str, Any], options: GenerationOptions, max_pictures: int
) -> CaptionRequest:
    """KServe v2: {"inputs": [{"name", "shape", "datatype": "BYTES", "data": ["<base64>"]}]}."""
    inputs, request_id = fields.pop("inputs"), fields.pop("id", None)
    fields.pop("outputs", None)  # the tensors that a client wants; the reply always has them all
    options = _merge(options, fields)
    if request_id is not None and not isinstance(request_id, str):
        raise RequestRefusal("bad_request", f'"id" is {_kind(request_id)}; it must be text')
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], Mapping):
        raise RequestRefusal("bad_request", '"inputs" must be a list of one tensor of pictures')
    tensor = inputs[0]
    if unknown := [name for name in tensor if name not in TENSOR_FIELDS]:
        raise RequestRefusal(
            "bad_request",
            f'"inputs[0]" has the field {unknown[0][:40]!r}, which is not one of a tensor: '
            f"{', '.join(TENSOR_FIELDS)}",
        )
    # Options may also be parameters of the tensor; `content_type` is a hint about its encoding.
    parameters = tensor.get("parameters")
    if isinstance(parameters, Mapping):
        parameters = {name: parameters[name] for name in parameters if name != "content_type"}
    options = _merge(options, {"parameters": parameters})
    datatype = tensor.get("datatype")
    if datatype != "BYTES":
        shown = repr(datatype[:20]) if isinstance(datatype, str) else _kind(datatype)
        raise RequestRefusal("bad_request", f'"inputs[0].datatype" is {shown}; it must be "BYTES"')
    data = list(_flat(tensor.get("data")))
    shape = tensor.get("shape")
    if not isinstance(shape, list) or not all(type(side) is int and side >= 0 for side in shape):
        raise RequestRefusal(
            "bad_request", '"inputs[0].shape" must be a list of whole numbers from 0'
        )
    if len(shape) > MAX_DIMENSIONS:  # multiplying thousands of numbers would take minutes
        raise RequestRefusal(
            "bad_request",
            f'"inputs[0].shape" has {len(shape)} dimensions; the limit is {MAX_DIMENSIONS}',
        )
    if math.prod(shape) != len(data):
        raise RequestRefusal(
            "bad_request",
            f'"inputs[0].shape" is {str(shape)[:40]}, but "data" holds {len(data)} elements',
        )
    _check_count(data, "inputs[0].data", max_pictures)
    pictures = [_decode_base64(item, f"inputs[0].data[{i}]") for i, item in enumerate(data)]
    return CaptionRequest(pictures, [options] * len(pictures), Form.KSERVE_V2, request_id)


def _flat(data: Any, depth: int = 0) -> Iterator[Any]:
    """The elements of a tensor, which may be written flat or nested by its shape."""
    if not isinstance(data, list) or depth == MAX_DIMENSIONS:
        yield data
        return
    for item in data:
        yield from _flat(item, depth + 1)


def _merge(options: GenerationOptions, fields: Mapping[str, Any]) -> GenerationOptions:
    """Options updated with the fields beside a picture, and with `options` and `parameters`."""
    single = dict(fields)
    grouped: dict[str, Any] = {}
    for name in ("options", "parameters"):
        group = single.pop(name, None)
        if group is None:
            continue
        if not isinstance(group, Mapping):
            raise RequestRefusal("bad_json", f'"{name}" is {_kind(group)}; it must be an object')
        grouped.update(group)
    return options.updated({**single, **grouped})


def _check_count(pictures: Any, where: str, max_pictures: int) -> None:
    if not isinstance(pictures, list) or not pictures:
        raise RequestRefusal("no_image", f'"{where}" must be a list of at least one picture')
    if len(pictures) > max_pictures:
        raise RequestRefusal(
            "too_many_images",
            f'"{where}" holds {len(pictures)} pictures; the limit is {max_pictures} a request; '
            "send several requests",
        )


def _decode_base64(value: Any, where: str) -> bytes:
    """Bytes from base64: standard or URL-safe alphabet, with or without line breaks or `data:`."""
    if not isinstance(value, str):
        raise RequestRefusal(
            "bad_base64", f'"{where}" is {_kind(value)}; it must be a picture file as base64 text'
        )
    text = value
    if text.startswith("data:"):
        text = text[:200].partition(",")[2] + text[200:]
    text = "".join(text.split()).translate({ord("-"): "+", ord("_"): "/"})
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestRefusal(
            "bad_base64",
            f'"{where}" is not valid base64 ({error}); encode the bytes of the '
            "picture file, e.g. with base64 -w0 photo.jpg",
        ) from None


def _kind(value: Any) -> str:
    """The type of a JSON value in words."""
    if value is None:
        return "null"
    kinds = {bool: "true or false", str: "text", list: "a list", dict: "an object"}
    return kinds.get(type(value), "a number")
