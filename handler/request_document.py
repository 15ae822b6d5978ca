"""Reads the JSON forms of a request: our own, and the KServe protocols v1 and v2.

Ours:       {"image": "<base64>", "options": {"num_beams": 5}}
KServe v1:  {"instances": [{"data": "<base64>"}, ...], "parameters": {...}}
KServe v2:  `kserve_v2.py`

TorchServe has routes for both protocols, but its own readers of them fail the whole batch when one
request is wrong. So they are read here, each request alone. Options are fields beside the picture,
or members of an object `options` or `parameters`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from handler.caption_request import HOW_TO_SEND, CaptionRequest, Form, RequestRefusal
from handler.document_values import check_count, decode_base64, kind_of, merge_options
from handler.kserve_v2 import parse_kserve_v2
from model.options import GenerationOptions


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
            f"the JSON body is {kind_of(document)}; it must be an object; {HOW_TO_SEND}",
        )
    fields = dict(document)
    form = form_of(document)
    if form is Form.KSERVE_V2:
        return parse_kserve_v2(fields, options, max_pictures, binary or b"")
    if binary:
        raise RequestRefusal(
            "bad_request",
            f'{len(binary)} bytes follow the JSON document; only KServe v2 "inputs" may have them',
        )
    if form is Form.KSERVE_V1:
        return _parse_v1(fields, options, max_pictures)
    if "image" not in fields:
        raise RequestRefusal("no_image", f'the JSON body has no "image"; {HOW_TO_SEND}')
    picture = decode_base64(fields.pop("image"), "image")
    return CaptionRequest([picture], [merge_options(options, fields)])


def _parse_v1(
    fields: dict[str, Any], options: GenerationOptions, max_pictures: int
) -> CaptionRequest:
    """KServe v1: {"instances": [{"data": "<base64>"}, ...], "parameters": {...}}."""
    instances = fields.pop("instances")
    fields.pop("signature_name", None)  # of TensorFlow Serving's clients; there is only one
    options = merge_options(options, fields)
    check_count(instances, "instances", max_pictures)
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
        pictures.append(decode_base64(value, f"{where}.{names[0]}"))
        options_of_each.append(merge_options(options, members))
    return CaptionRequest(pictures, options_of_each, Form.KSERVE_V1)
