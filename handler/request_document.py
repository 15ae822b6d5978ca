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
DIMENSIONS = 5


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
    rest = dict(document)
    if "instances" in rest:
        return _parse_v1(rest, options, max_pictures)
    if "inputs" in rest:
        return _parse_v2(rest, options, max_pictures)
    if "image" not in rest:
        raise RequestRefusal("no_image", f'the JSON body has no "image"; {HOW_TO_SEND}')
    picture = _decode_base64(rest.pop("image"), "image")
    return CaptionRequest([picture], [_merge(options, rest)])


def _parse_v1(
    rest: dict[str, Any], options: GenerationOptions, max_pictures: int
) -> CaptionRequest:
    """KServe v1: {"instances": [{"data": "<base64>"}, ...], "parameters": {...}}."""
    instances = rest.pop("instances")
    rest.pop("signature_name", None)  # TensorFlow Serving's clients send it; there is one signature
    options = _merge(options, rest)
    _check_count(instances, "instances", max_pictures)
    pictures, chosen = [], []
    for index, instance in enumerate(instances):
        where = f"instances[{index}]"
        own = dict(instance) if isinstance(instance, Mapping) else {"data": instance}
        names = [name for name in ("data", "image", "b64") if name in own]
        if len(names) != 1:
            raise RequestRefusal("no_image", f'{where} must hold one "data" with a base64 picture')
        held = own.pop(names[0])
        if isinstance(held, Mapping) and set(held) == {"b64"}:
            held = held["b64"]
        pictures.append(_decode_base64(held, f"{where}.{names[0]}"))
        chosen.append(_merge(options, own))
    return CaptionRequest(pictures, chosen, Form.KSERVE_V1)


def _parse_v2(
    rest: dict[str, Any], options: GenerationOptions, max_pictures: int
) -> CaptionRequest:
    """KServe v2: {"inputs": [{"name", "shape", "datatype": "BYTES", "data": ["<base64>"]}]}."""
    inputs, request_id = rest.pop("inputs"), rest.pop("id", None)
    rest.pop("outputs", None)  # the tensors that a client wants; the reply always has them all
    options = _merge(options, rest)
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
    if len(shape) > DIMENSIONS:  # multiplying thousands of numbers would take minutes
        raise RequestRefusal(
            "bad_request",
            f'"inputs[0].shape" has {len(shape)} dimensions; the limit is {DIMENSIONS}',
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
    if not isinstance(data, list) or depth == DIMENSIONS:
        yield data
        return
    for item in data:
        yield from _flat(item, depth + 1)


def _merge(options: GenerationOptions, rest: Mapping[str, Any]) -> GenerationOptions:
    """Options updated with the fields beside a picture, and with `options` and `parameters`."""
    loose = dict(rest)
    given: dict[str, Any] = {}
    for name in ("options", "parameters"):
        group = loose.pop(name, None)
        if group is None:
            continue
        if not isinstance(group, Mapping):
            raise RequestRefusal("bad_json", f'"{name}" is {_kind(group)}; it must be an object')
        given.update(group)
    return options.updated({**loose, **given})


def _check_count(pictures: Any, where: str, max_pictures: int) -> None:
    if not isinstance(pictures, list) or not pictures:
        raise RequestRefusal("no_image", f'"{where}" must be a list of at least one picture')
    if len(pictures) > max_pictures:
        raise RequestRefusal(
            "too_many_images",
            f'"{where}" holds {len(pictures)} pictures; the limit is {max_pictures} a request; '
            "send several requests",
        )


def _decode_base64(held: Any, where: str) -> bytes:
    """Bytes from base64: standard or URL-safe alphabet, with or without line breaks or `data:`."""
    if not isinstance(held, str):
        raise RequestRefusal(
            "bad_base64", f'"{where}" is {_kind(held)}; it must be a picture file as base64 text'
        )
    text = held
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
