"""Reads the JSON forms of a request: our own, those of KServe v1 and v2, and Hugging Face's.

Ours:       {"image": "<base64>", "options": {"num_beams": 5}}
            {"images": ["<base64>", {"image": "<base64>", "options": {...}}, ...]}
KServe v1:  {"instances": [{"data": "<base64>"}, ...], "parameters": {...}}
KServe v2:  `kserve_v2.py`
Hugging Face: {"inputs": "<base64>", "parameters": {"generate_kwargs": {...}}}, `hugging_face.py`

KServe v2 and Hugging Face both have `inputs`: there a list of tensors, here text or a list of it.

TorchServe has routes for both protocols, but its own readers of them fail the whole batch when one
request is wrong. So they are read here, each request alone. Options are fields beside the picture,
or members of an object `options` or `parameters`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from handler.requests.caption_request import HOW_TO_SEND, CaptionRequest, Form, RequestRefusal
from handler.requests.hugging_face import captioner_options
from handler.requests.kserve_v2 import parse_kserve_v2
from handler.requests.picture_text import decode_base64, decoded_or_refusal, refused_url
from handler.requests.values import check_count, kind_of, merge_options
from model.options import GenerationOptions

#: Members that may hold a picture as base64 text, or as an object with one of the last two.
PICTURE_MEMBERS = ("image", "data", "image_bytes", "b64", "base64")
_ENCODED = ("b64", "base64")
_URLS = ("url", "urls")
#: Members of other servers' clients that say nothing about captions: the signature of a model for
#: TensorFlow Serving, and what a client notes for itself.
_UNREAD = ("signature_name", "metadata")
#: Of an instance also the class that TorchServe's examples name for explanations.
_UNREAD_OF_INSTANCE = ("metadata", "target")


def form_of(document: Any) -> Form:
    """The form of a request from its parsed JSON document, which may be wrong otherwise."""
    if isinstance(document, Mapping) and "instances" in document:
        return Form.KSERVE_V1
    if isinstance(document, Mapping) and "inputs" in document:
        inputs = document["inputs"]
        if isinstance(inputs, str):
            return Form.PLAIN
        several = isinstance(inputs, list) and inputs
        if several and all(isinstance(each, str) for each in inputs):
            return Form.SEVERAL
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
    for name in _UNREAD:
        fields.pop(name, None)
    if form is Form.KSERVE_V1:
        return _parse_list("instances", fields, options, max_pictures, form)
    if "inputs" in fields:
        return _parse_hugging_face(fields, options, max_pictures)
    if form is Form.SEVERAL:
        return _parse_list("images", fields, options, max_pictures, form)
    names = [name for name in (*PICTURE_MEMBERS, *_URLS) if name in fields]
    if not names:
        raise RequestRefusal("no_image", f'the JSON body has no "image"; {HOW_TO_SEND}')
    if len(names) > 1:
        raise RequestRefusal(
            "bad_request",
            f"the JSON body holds a picture in each of {' and '.join(names)}; send one",
        )
    picture = decode_base64(_encoded(fields.pop(names[0]), names[0]), names[0])
    return CaptionRequest([picture], [merge_options(options, fields)])


def _parse_hugging_face(
    fields: dict[str, Any], options: GenerationOptions, max_pictures: int
) -> CaptionRequest:
    """Read Hugging Face's form: one picture as text, or a list of them."""
    given = fields.pop("inputs")
    if isinstance(given, str):
        picture = decode_base64(given, "inputs")
        return CaptionRequest([picture], [options.updated(captioner_options(fields))])
    check_count(given, "inputs", max_pictures)
    options = options.updated(captioner_options(fields))
    pictures = [decoded_or_refusal(each, f"inputs[{i}]") for i, each in enumerate(given)]
    return CaptionRequest(pictures, [options] * len(pictures), Form.SEVERAL)


def _encoded(value: Any, name: str) -> Any:
    """The text of a picture, which may be in an object with one member.

    Raises:
        RequestRefusal: The member `name` is one for a URL.
    """
    if name in _URLS:
        raise refused_url(f'"{name}"')
    if isinstance(value, Mapping) and len(value) == 1:
        return next((value[each] for each in _ENCODED if each in value), value)
    return value


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
        for member in _UNREAD_OF_INSTANCE:
            members.pop(member, None)
        names = [each for each in (*PICTURE_MEMBERS, "url") if each in members]
        if len(names) != 1:
            raise RequestRefusal("no_image", f'{where} must hold one "data" with a base64 picture')
        value = members.pop(names[0])
        try:
            value = _encoded(value, names[0])
        except RequestRefusal as refusal:
            pictures.append(refusal)
        else:
            pictures.append(decoded_or_refusal(value, f"{where}.{names[0]}"))
        options_of_each.append(merge_options(options, members))
    return CaptionRequest(pictures, options_of_each, form)
