"""Reads the JSON forms of a request: our own, and the KServe protocols v1 and v2.

Ours:       {"image": "<base64>", "options": {"num_beams": 5}}
            {"images": ["<base64>", {"image": "<base64>", "options": {...}}, ...]}
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
from handler.document_values import (
    check_count,
    decode_base64,
    decoded_or_refusal,
    kind_of,
    merge_options,
)
from handler.kserve_v2 import parse_kserve_v2
from model.options import GenerationOptions


def form_of(document: Any) -> Form:
    """The form of a request from its parsed JSON document, which may be wrong otherwise."""
    if isinstance(document, Mapping) and "instances" in document:
        return Form.KSERVE_V1
    if isinstance(document, Mapping) and "inputs" in document:
        return Form.KSERVE_V2
    if isinstance(document, Mapping) and "images" in document:
        return Form.SEVERAL
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
        max_pictures: Pictures that one request may hold.
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
        fields.pop("signature_name", None)  # of TensorFlow Serving's clients; there is only one
        return _parse_list("instances", fields, options, max_pictures, form)
    if form is Form.SEVERAL:
        return _parse_list("images", fields, options, max_pictures, form)
    if "image" not in fields:
        raise RequestRefusal("no_image", f'the JSON body has no "image"; {HOW_TO_SEND}')
    picture = decode_base64(fields.pop("image"), "image")
    return CaptionRequest([picture], [merge_options(options, fields)])


def _parse_list(
    name: str, fields: dict[str, Any], options: GenerationOptions, max_pictures: int, form: Form
) -> CaptionRequest:
    """Read a list of pictures, each of them text or an object that may have options of its own."""
    given = fields.pop(name)
    if "image" in fields:
        raise RequestRefusal("bad_request", f'the request has "image" and "{name}"; send one')
    options = merge_options(options, fields)
    check_count(given, name, max_pictures)
    pictures: list[bytes | RequestRefusal] = []
    options_of_each = []
    for index, each in enumerate(given):
        where = f"{name}[{index}]"
        members = dict(each) if isinstance(each, Mapping) else {"data": each}
        names = [name for name in ("data", "image", "b64") if name in members]
        if len(names) != 1:
            raise RequestRefusal("no_image", f'{where} must hold one "data" with a base64 picture')
        value = members.pop(names[0])
        if isinstance(value, Mapping) and set(value) == {"b64"}:
            value = value["b64"]
        pictures.append(decoded_or_refusal(value, f"{where}.{names[0]}"))
        options_of_each.append(merge_options(options, members))
    return CaptionRequest(pictures, options_of_each, form)
