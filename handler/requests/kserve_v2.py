"""Reads the JSON of the KServe protocol v2, and the binary data that may follow it.

    {"inputs": [{"name": ..., "shape": [1], "datatype": "BYTES", "data": ["<base64>"]}]}

Several tensors are their pictures one after another. A shape may be -1 or have a side of -1, as in
TorchServe's examples; the data then tells how many there are. In the protocol's binary extension a
tensor has a parameter `binary_data_size` instead of `data`, and the bytes of the picture files
follow the document.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from handler.requests.caption_request import CaptionRequest, Form, RequestRefusal
from handler.requests.picture_text import decoded_or_refusal
from handler.requests.values import kind_of, merge_options
from model.options import BadOption, GenerationOptions

#: Fields of a KServe v2 input tensor.
TENSOR_FIELDS = ("name", "shape", "datatype", "data", "parameters")
#: Fields of a request that change nothing: `outputs` are the tensors that a client wants, and the
#: reply always has them all; the model is the one of the route.
UNREAD_FIELDS = ("outputs", "model_name", "model_version")
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
    for name in UNREAD_FIELDS:
        fields.pop(name, None)
    options = merge_options(options, _without_protocol(fields))
    if request_id is not None and not isinstance(request_id, str):
        raise RequestRefusal("bad_request", f'"id" is {kind_of(request_id)}; it must be text')
    if not isinstance(inputs, list) or not all(isinstance(each, Mapping) for each in inputs):
        raise RequestRefusal("bad_request", '"inputs" must be a list of tensors of pictures')
    if not inputs:
        raise RequestRefusal("bad_request", '"inputs" must be a list of at least one tensor')
    read = [_Tensor(each, f"inputs[{i}]", options) for i, each in enumerate(inputs)]
    sizes = [each.binary_size for each in read]
    if sum(size or 0 for size in sizes) != len(binary):
        raise RequestRefusal(
            "bad_request",
            f'{len(binary)} bytes follow the JSON document; "inputs[0].parameters.binary_data_size"'
            " must be that number, or those of several tensors together",
        )
    pictures: list[bytes | bytearray | RequestRefusal] = []
    options_of_each: list[GenerationOptions] = []
    at = 0
    for tensor in read:
        room = max_pictures - len(pictures)
        if tensor.binary_size is None:
            pictures += tensor.decoded(room, max_pictures)
        else:
            end = at + tensor.binary_size
            pictures += tensor.elements(binary, at, end, room, max_pictures)
            at = end
        options_of_each += [tensor.options] * (len(pictures) - len(options_of_each))
    counts = sorted({each.num_captions for each in options_of_each})
    if len(counts) > 1:
        raise BadOption(
            "num_captions",
            counts[-1],
            f"{counts[0]} as in another tensor: the rows of a reply are alike",
        )
    return CaptionRequest(pictures, options_of_each, Form.KSERVE_V2, request_id)


class _Tensor:
    """An input tensor whose fields have the right types.

    Attributes:
        options: Those of its pictures.
        binary_size: Its bytes behind the document; None if its data is in the document.
    """

    def __init__(self, tensor: Mapping[str, Any], where: str, options: GenerationOptions) -> None:
        """Read the fields of a tensor.

        Args:
            tensor: The JSON object.
            where: Its place in the document, for messages.
            options: Options where its parameters give none.
        """
        self._where = where
        if unknown := [name for name in tensor if name not in TENSOR_FIELDS]:
            raise RequestRefusal(
                "bad_request",
                f'"{where}" has the field {unknown[0][:40]!r}, which is not one of a tensor: '
                f"{', '.join(TENSOR_FIELDS)}",
            )
        # Options may also be parameters of the tensor.
        own = _without_protocol({"parameters": tensor.get("parameters")})
        size = None
        if isinstance(own["parameters"], dict):
            size = own["parameters"].pop("binary_data_size", None)
        self.options = merge_options(options, own)
        datatype = tensor.get("datatype")
        if datatype != "BYTES":
            shown = repr(datatype[:20]) if isinstance(datatype, str) else kind_of(datatype)
            raise RequestRefusal(
                "bad_request", f'"{where}.datatype" is {shown}; it must be "BYTES"'
            )
        if size is not None and ("data" in tensor or type(size) is not int or size < 0):
            raise RequestRefusal(
                "bad_request",
                f'"{where}.parameters.binary_data_size" must be that number of bytes of the tensor '
                'which follow the document, without "data"',
            )
        self.binary_size: int | None = size
        self._data = tensor.get("data")
        self._shape = tensor.get("shape")
        self._sides = _sides(self._shape, where)

    def decoded(self, room: int, limit: int) -> list[bytes | RequestRefusal]:
        """Pictures from base64 text in the document, at most `room` of the request's `limit`."""
        data = list(_flat(self._data))
        self._check(len(data), f'"data" holds {len(data)} elements')
        self._check_count(len(data), room, limit)
        where = f"{self._where}.data"
        return [decoded_or_refusal(item, f"{where}[{i}]") for i, item in enumerate(data)]

    def elements(
        self, binary: bytes | bytearray, at: int, end: int, room: int, limit: int
    ) -> list[bytes | bytearray]:
        """Picture files from the bytes `at` to `end`: each has its length before it, in 4 bytes."""
        if -1 not in self._sides:
            count = math.prod(self._sides)
            self._check_count(count, room, limit)
        found: list[bytes | bytearray] = []
        first = at
        while at < end and len(found) <= room:
            begin = at + 4
            at = begin + int.from_bytes(binary[at:begin], "little")
            found.append(binary[begin:at])
        if at == end:
            self._check(len(found), f"the binary data has {len(found)}")
        if at > end:
            raise RequestRefusal(
                "bad_request",
                f'"{self._where}" has {len(found)} elements, which end at byte {at - first} of the '
                f"binary data; the data has {end - first} bytes",
            )
        self._check_count(len(found), room, limit)
        return found

    def _check(self, count: int, said: str) -> None:
        """Refuse another number of elements than the shape has."""
        known = math.prod(side for side in self._sides if side != -1)
        fits = count % known == 0 if -1 in self._sides and known else count == known
        if not fits:
            raise RequestRefusal(
                "bad_request", f'"{self._where}.shape" is {str(self._shape)[:40]}, but {said}'
            )

    def _check_count(self, count: int, room: int, limit: int) -> None:
        if not 0 < count <= room:
            raise RequestRefusal(
                "too_many_images" if count else "no_image",
                f'"{self._where}.shape" is {str(self._shape)[:40]}; it must be that of 1 to '
                f"{limit} pictures, those of all tensors together; send several requests",
            )


def _sides(shape: Any, where: str) -> list[int]:
    """The sides of a shape, one of which may be -1, for any number."""
    sides = [shape] if type(shape) is int else shape
    if (
        not isinstance(sides, list)
        or not all(type(side) is int and side >= -1 for side in sides)
        or sides.count(-1) > 1
    ):
        raise RequestRefusal(
            "bad_request",
            f'"{where}.shape" must be a list of whole numbers from 0, of which one may be -1',
        )
    if len(sides) > MAX_DIMENSIONS:  # multiplying thousands of numbers would take minutes
        raise RequestRefusal(
            "bad_request",
            f'"{where}.shape" has {len(sides)} dimensions; the limit is {MAX_DIMENSIONS}',
        )
    return sides


def _without_protocol(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields whose `parameters`, if they are an object, have no `PROTOCOL_PARAMETERS` any more."""
    found, parameters = dict(fields), fields.get("parameters")
    if isinstance(parameters, Mapping):
        found["parameters"] = {
            name: value for name, value in parameters.items() if name not in PROTOCOL_PARAMETERS
        }
    return found


def _flat(data: Any, depth: int = 0) -> Iterator[Any]:
    """The elements of a tensor, which may be written flat or nested by its shape."""
    if not isinstance(data, list) or depth == MAX_DIMENSIONS:
        yield data
        return
    for item in data:
        yield from _flat(item, depth + 1)
