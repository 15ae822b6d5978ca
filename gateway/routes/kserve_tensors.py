"""Tensors of KServe v2 in JSON and in the binary form that its clients use by default.

A binary request is JSON followed by the bytes of its tensors; the header
`Inference-Header-Content-Length` is the length of the JSON. An element of a BYTES tensor is its
length as 4 bytes, little-endian, and its bytes. Several tensors are their pictures one after
another.
(KServe, "Open Inference Protocol", extension "Binary Tensor Data".)
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from client import Caption
from gateway.captioning.captioner import Outcome
from gateway.errors import GatewayError
from gateway.pictures.reading import Picture, decode_base64, or_error, parse_json

LENGTH_HEADER = "Inference-Header-Content-Length"
#: Name of each output tensor -> its datatype.
OUTPUTS = {
    "caption": "BYTES",
    "confidence": "FP32",
    "log_prob": "FP32",
    "tokens": "INT64",
    "finish_reason": "BYTES",
    "quality": "FP32",
}
#: Datatype -> format of one number, little-endian.
_FORMATS = {"FP32": "<f", "INT64": "<q"}
#: Parameters of a request that say how to reply; the others are options.
_BINARY_OUTPUT = "binary_data_output"
MAX_DIMENSIONS = 5
#: What stands in the row of a picture that failed.
_NO_CAPTION = Caption("", 0.0, 0.0, 0, "error")


class InferRequest:
    """A request that was read.

    Attributes:
        pictures: The bytes of each picture file.
        options: Names and values of options, of the request and of its tensor.
        id: The id that the client gave, or None.
        outputs: Names of the output tensors that it wants -> whether in binary form.
    """

    def __init__(self, body: bytes, header_length: str | None) -> None:
        """Read a body.

        Args:
            body: JSON, and perhaps bytes of tensors behind it.
            header_length: The value of `LENGTH_HEADER`, if the request has it.

        Raises:
            GatewayError: The body does not have the form of the protocol.
        """
        length = len(body)
        if header_length is not None:
            if not header_length.isdecimal() or int(header_length[:20]) > length:
                raise _bad(
                    f"{LENGTH_HEADER} is {header_length[:20]!r}; the body has {length} bytes"
                )
            length = int(header_length)
        document = parse_json(body[:length])
        tensors = _tensors(document)
        self.id = document.get("id")
        if self.id is not None and not isinstance(self.id, str):
            raise _bad('"id" must be text')
        parameters = _object(document, "parameters")
        in_binary = parameters.pop(_BINARY_OUTPUT, False) is True
        self.outputs = _outputs(document.get("outputs"), in_binary)
        self.pictures: list[Picture] = []
        owns: list[dict[str, Any]] = []
        for index, tensor in enumerate(tensors):
            where = f"inputs[{index}]"
            own = _object(tensor, "parameters")
            size = own.pop("binary_data_size", None)
            own.pop("content_type", None)  # a hint about the encoding
            owns.append(own)
            found: list[Picture]
            if size is None:
                data = list(_flat(tensor.get("data")))
                places = [
                    f"data[{i}]" if not index else f"{where}.data[{i}]" for i in range(len(data))
                ]
                found = [
                    or_error(decode_base64, each, place)
                    for each, place in zip(data, places, strict=True)
                ]
            else:
                if type(size) is not int or not 0 <= size <= len(body) - length:
                    raise _bad(
                        f"binary_data_size of {where} is {str(size)[:20]}, but "
                        f"{len(body) - length} bytes are left"
                    )
                found = [*_elements(body[length : length + size])]
                length += size
            _check_shape(tensor.get("shape"), len(found), where)
            self.pictures += found
        if any(own != owns[0] for own in owns):
            raise _bad("the tensors have different parameters; send several requests")
        if length != len(body):
            raise _bad(f"{len(body) - length} bytes follow those that the tensors name")
        self.options = [*parameters.items(), *owns[0].items()]


def infer_reply(
    request: InferRequest, outcomes: Sequence[Outcome], model: Mapping[str, Any]
) -> tuple[bytes, int | None]:
    """The body of a reply.

    A picture without captions has a row without text. Why is in the tensor `error`, which is there
    only where a picture has none.

    Args:
        request: Names the outputs, and which of them are binary.
        outcomes: For each picture its captions or its error; one at least has captions.
        model: Its name and version.

    Returns:
        The body, and the length of its JSON if bytes of tensors follow it.
    """
    results = [None if isinstance(each, GatewayError) else each for each in outcomes]
    columns = max(len(result.captions) for result in results if result)
    rows = [result.captions if result else (_NO_CAPTION,) * columns for result in results]
    captions = [caption for row in rows for caption in row]
    shape = [len(outcomes), columns]
    outputs, blobs = [], []
    for name, in_binary in request.outputs.items():
        datatype = OUTPUTS[name]
        values = [getattr(each, name, None) for each in captions]
        if name == "quality" and None in values:
            continue  # a captioner without a quality head gives none
        # An older captioner gives no reason.
        data = [value if value is not None else "" for value in values]
        output: dict[str, Any] = {"name": name, "datatype": datatype, "shape": shape}
        if in_binary:
            blob = b"".join(_packed(each, datatype) for each in data)
            output["parameters"] = {"binary_data_size": len(blob)}
            blobs.append(blob)
        else:
            output["data"] = data
        outputs.append(output)
    outputs += _more_outputs(outcomes)
    reply: dict[str, Any] = {"model_name": model["name"], "model_version": model["version"]}
    if request.id is not None:
        reply["id"] = request.id
    text = json.dumps({**reply, "outputs": outputs}).encode()
    return text + b"".join(blobs), len(text) if blobs else None


def _more_outputs(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Tensors that are there only where they say something: `error`, `features`, those of `ood`."""
    outputs: list[dict[str, Any]] = []
    count = len(outcomes)
    if any(isinstance(each, GatewayError) for each in outcomes):
        errors = [
            json.dumps(each.to_dict()) if isinstance(each, GatewayError) else ""
            for each in outcomes
        ]
        outputs.append({"name": "error", "datatype": "BYTES", "shape": [count], "data": errors})
    found = [None if isinstance(each, GatewayError) else each.features for each in outcomes]
    if one := next((each for each in found if each), None):
        is_text = isinstance(one["data"], str)
        nothing = "" if is_text else _zeros(one["shape"])
        data = [each["data"] if each else nothing for each in found]
        kind, size = ("BYTES", []) if is_text else ("FP32", one["shape"])
        outputs.append(
            {"name": "features", "datatype": kind, "shape": [count, *size], "data": data}
        )
    oods = [None if isinstance(each, GatewayError) else each.ood for each in outcomes]
    if any(oods):  # a picture that failed is said to be usual; `error` has its reason
        for name, usual in (("score", 0.0), ("p_value", 1.0)):
            data = [getattr(each, name) if each else usual for each in oods]
            outputs.append(
                {"name": f"ood_{name}", "datatype": "FP32", "shape": [count], "data": data}
            )
    return outputs


def _zeros(shape: Sequence[int]) -> Any:
    """Zeros in lists as nested as a shape."""
    return [_zeros(shape[1:]) for _ in range(shape[0])] if shape else 0.0


def _tensors(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    inputs = document.get("inputs")
    if not isinstance(inputs, list) or not inputs or not all(isinstance(x, dict) for x in inputs):
        raise _bad('"inputs" must be a list of tensors of pictures')
    for index, tensor in enumerate(inputs):
        if tensor.get("datatype") != "BYTES":
            shown = str(tensor.get("datatype"))[:20]
            raise _bad(f'"inputs[{index}].datatype" is {shown}; it must be "BYTES"')
    return inputs


def _outputs(wanted: Any, in_binary: bool) -> dict[str, bool]:
    """The outputs that a request lists, or all; each with whether it is binary."""
    if not wanted:
        return dict.fromkeys(OUTPUTS, in_binary)
    if not isinstance(wanted, list) or not all(isinstance(each, dict) for each in wanted):
        raise _bad('"outputs" must be a list of objects')
    found: dict[str, bool] = {}
    for output in wanted:
        name = output.get("name")
        if not isinstance(name, str) or name not in OUTPUTS:
            raise _bad(f"there is no output {str(name)[:40]!r}; known: {', '.join(OUTPUTS)}")
        found[name] = bool(_object(output, "parameters").get("binary_data", in_binary))
    return found


def _check_shape(shape: Any, count: int, where: str) -> None:
    """Refuse a shape of another number of elements; one side may be -1, for any number."""
    sides = [shape] if type(shape) is int else shape
    if (
        not isinstance(sides, list)
        or len(sides) > MAX_DIMENSIONS
        or not all(type(side) is int and -1 <= side <= 1 << 32 for side in sides)
        or sides.count(-1) > 1
    ):
        raise _bad(
            f'"{where}.shape" must be a list of at most {MAX_DIMENSIONS} whole numbers, of which '
            "one may be -1"
        )
    known = math.prod(side for side in sides if side != -1)
    if count % known if -1 in sides and known else count != known:
        raise _bad(f'"{where}.shape" is {shape}, but there are {count} elements')


def _flat(data: Any, depth: int = 0) -> Iterator[Any]:
    """The elements of a tensor, which may be written flat or nested by its shape."""
    if not isinstance(data, list) or depth == MAX_DIMENSIONS:
        yield data
        return
    for item in data:
        yield from _flat(item, depth + 1)


def _elements(blob: bytes) -> Iterator[bytes]:
    """The elements of a BYTES tensor in binary form."""
    at = 0
    while at < len(blob):
        end = at + 4
        if end <= len(blob):
            end += struct.unpack_from("<I", blob, at)[0]
        if end > len(blob):
            raise _bad(f"the element at byte {at} of the tensor ends after its {len(blob)} bytes")
        yield blob[at + 4 : end]
        at = end


def _packed(value: Any, datatype: str) -> bytes:
    if datatype == "BYTES":
        text = str(value).encode()
        return struct.pack("<I", len(text)) + text
    return struct.pack(_FORMATS[datatype], value)


def _object(holder: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A copy of an object in a document; empty if it is not there."""
    found = holder.get(name)
    if found is not None and not isinstance(found, dict):
        raise _bad(f'"{name}" must be an object')
    return dict(found or {})


def _bad(message: str) -> GatewayError:
    return GatewayError(400, "bad_request", message)
