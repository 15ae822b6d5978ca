"""Reads the JSON forms of a request: our own, and the KServe protocols v1 and v2.

Ours:       {"image": "<base64>", "options": {"num_beams": 5}}
KServe v1:  {"instances": [{"data": "<base64>"}, ...], "parameters": {...}}
KServe v2:  {"inputs": [{"name": ..., "shape": [1], "datatype": "BYTES", "data": ["<base64>"]}]}

In KServe v2 the pictures may also come as binary data behind the document.

TorchServe has routes for both protocols, but its own readers of them fail the whole batch when one
request is wrong. So they are read here, each request alone. Options are fields beside the picture,
or members of an object `options` or `parameters`.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from handler.caption_request import HOW_TO_SEND, CaptionRequest, Form, RequestRefusal
from model.options import GenerationOptions

#: Fields of a KServe v2 input tensor.
TENSOR_FIELDS = ("name", "shape", "datatype", "data", "parameters")
#: Parameters that KServe v2 and its extensions define, and that change nothing here: the reply is
#: always JSON, and requests are independent of each other.
PROTOCOL_PARAMETERS = (
    "binary_data_output",
    "content_type",
    "headers",
    "priority",
    "sequence_end",
    "sequence_id",
    "sequence_start",
    "timeout",
)
#: Most dimensions of a KServe tensor.
MAX_DIMENSIONS = 5


def read_json(data: bytes | bytearray) -> Any:
    """Parse a JSON document.

    Args:
        data: Its text.

    Raises:
        RequestRefusal: It is not valid JSON, or an object of it has the same name twice.
    """
    try:
        return json.loads(data, object_pairs_hook=_object)
    except RequestRefusal:  # a ValueError too
        raise
    except (ValueError, RecursionError) as error:
        raise RequestRefusal(
            "bad_json", f"the body is not valid JSON ({str(error)[:100]}); {HOW_TO_SEND}"
        ) from None


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; Python alone would keep the last of two pictures with the same name."""
    found: dict[str, Any] = {}
    for name, value in members:
        if name in found:
            raise RequestRefusal(
                "bad_request",
                f"an object in the JSON body has {name[:40]!r} twice; send each name once",
            )
        found[name] = value
    return found


def form_of(document: Any) -> Form:
    """The form of a request from its parsed JSON document, which may be wrong otherwise."""
    if isinstance(document, Mapping) and "instances" in document:
        return Form.KSERVE_V1
    if isinstance(document, Mapping) and "inputs" in document:
        return Form.KSERVE_V2
    return Form.PLAIN


def parse_document(
    document: Any,
    options: GenerationOptions,
    max_pictures: int,
    binary: bytes | bytearray | None = None,
) -> CaptionRequest:
    """Read a parsed JSON document.

    Args:
        document: Any JSON value.
        options: Options where the document gives none.
        max_pictures: Pictures that one KServe request may hold.
        binary: The bytes behind a KServe v2 document.

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
    form = form_of(document)
    if form is Form.KSERVE_V2:
        return _parse_v2(fields, options, max_pictures, binary or b"")
    if binary:
        raise RequestRefusal(
            "bad_request",
            f'{len(binary)} bytes follow the JSON document; only KServe v2 "inputs" may have them',
        )
    if form is Form.KSERVE_V1:
        return _parse_v1(fields, options, max_pictures)
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
    fields: dict[str, Any],
    options: GenerationOptions,
    max_pictures: int,
    binary: bytes | bytearray,
) -> CaptionRequest:
    """KServe v2: {"inputs": [{"name", "shape", "datatype": "BYTES", "data": ["<base64>"]}]}."""
    inputs, request_id = fields.pop("inputs"), fields.pop("id", None)
    fields.pop("outputs", None)  # the tensors that a client wants; the reply always has them all
    options = _merge(options, _without_protocol(fields))
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
    # Options may also be parameters of the tensor.
    of_tensor = _without_protocol({"parameters": tensor.get("parameters")})
    binary_size = None
    if isinstance(of_tensor["parameters"], dict):
        binary_size = of_tensor["parameters"].pop("binary_data_size", None)
    options = _merge(options, of_tensor)
    datatype = tensor.get("datatype")
    if datatype != "BYTES":
        shown = repr(datatype[:20]) if isinstance(datatype, str) else _kind(datatype)
        raise RequestRefusal("bad_request", f'"inputs[0].datatype" is {shown}; it must be "BYTES"')
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
    if binary_size is not None or binary:
        if "data" in tensor or type(binary_size) is not int or binary_size != len(binary):
            raise RequestRefusal(
                "bad_request",
                f"{len(binary)} bytes follow the JSON document; "
                '"inputs[0].parameters.binary_data_size" must be that number, without "data"',
            )
        count = math.prod(shape)
        if not 0 < count <= max_pictures:
            raise RequestRefusal(
                "too_many_images" if count else "no_image",
                f'"inputs[0].shape" is {str(shape)[:40]}; it must be that of 1 to {max_pictures} '
                "pictures; send several requests",
            )
        pictures = _binary_elements(binary, count)
        return CaptionRequest(pictures, [options] * len(pictures), Form.KSERVE_V2, request_id)
    data = list(_flat(tensor.get("data")))
    if math.prod(shape) != len(data):
        raise RequestRefusal(
            "bad_request",
            f'"inputs[0].shape" is {str(shape)[:40]}, but "data" holds {len(data)} elements',
        )
    _check_count(data, "inputs[0].data", max_pictures)
    decoded = [_decode_base64(item, f"inputs[0].data[{i}]") for i, item in enumerate(data)]
    return CaptionRequest(decoded, [options] * len(decoded), Form.KSERVE_V2, request_id)


def _without_protocol(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields whose `parameters`, if they are an object, have no `PROTOCOL_PARAMETERS` any more."""
    found, parameters = dict(fields), fields.get("parameters")
    if isinstance(parameters, Mapping):
        found["parameters"] = {
            name: value for name, value in parameters.items() if name not in PROTOCOL_PARAMETERS
        }
    return found


def _binary_elements(binary: bytes | bytearray, count: int) -> list[bytes | bytearray]:
    """Picture files from a binary BYTES tensor: each has its length before it, in 4 bytes."""
    elements, at = [], 0
    for _ in range(count):
        begin = at + 4
        at = begin + int.from_bytes(binary[at:begin], "little")
        elements.append(binary[begin:at])
    if at != len(binary):
        raise RequestRefusal(
            "bad_request",
            f'"inputs[0].shape" has {count} elements, which end at byte {at} of the binary data; '
            f"the data has {len(binary)} bytes",
        )
    return elements


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
