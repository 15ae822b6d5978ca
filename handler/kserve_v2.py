"""Reads the JSON of the KServe protocol v2, and the binary data that may follow it.

    {"inputs": [{"name": ..., "shape": [1], "datatype": "BYTES", "data": ["<base64>"]}]}

In the protocol's binary extension the tensor has a parameter `binary_data_size` instead of `data`,
and the bytes of the picture files follow the document.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from handler.caption_request import CaptionRequest, Form, RequestRefusal
from handler.document_values import check_count, decoded_or_refusal, kind_of, merge_options
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


def parse_kserve_v2(
    fields: dict[str, Any],
    options: GenerationOptions,
    max_pictures: int,
    binary: bytes | bytearray,
) -> CaptionRequest:
    """Read a KServe v2 request.

    Args:
        fields: Its document, which has `inputs`; fields are removed from it.
        options: Options where the document gives none.
        max_pictures: Pictures that it may hold.
        binary: The bytes behind the document.

    Raises:
        RequestRefusal: It holds no picture, too many, or has the wrong structure.
        UnknownOption: It gives an option that does not exist.
        BadOption: It gives an option a value it cannot take.
    """
    inputs, request_id = fields.pop("inputs"), fields.pop("id", None)
    fields.pop("outputs", None)  # the tensors that a client wants; the reply always has them all
    options = merge_options(options, _without_protocol(fields))
    if request_id is not None and not isinstance(request_id, str):
        raise RequestRefusal("bad_request", f'"id" is {kind_of(request_id)}; it must be text')
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
    options = merge_options(options, of_tensor)
    datatype = tensor.get("datatype")
    if datatype != "BYTES":
        shown = repr(datatype[:20]) if isinstance(datatype, str) else kind_of(datatype)
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
    check_count(data, "inputs[0].data", max_pictures)
    decoded = [decoded_or_refusal(item, f"inputs[0].data[{i}]") for i, item in enumerate(data)]
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
