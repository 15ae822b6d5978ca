"""Requests in the forms of other servers' clients, read as TorchServe hands them over."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import GatewayError
from gateway.pictures import hugging_face as gateway_reader
from handler.replies.failure import failure_of
from handler.requests import hugging_face as handler_reader
from handler.requests.caption_request import CaptionRequest, Form, RequestRefusal
from handler.requests.fields import parse_request, read_body
from handler.requests.picture_text import decode_base64, picture_file
from model.image.refusals import begins_as_known_format
from model.options import BadOption, GenerationOptions, UnknownOption
from model.refusal import Refusal
from tests.pictures import sound

PICTURES = sound()
PICTURE = PICTURES["jpeg"]
TEXT = base64.b64encode(PICTURE).decode()
DEFAULTS = GenerationOptions()
URL = "https://example.org/photo.jpg"


def parse(fields: dict[str, Any], headers: dict[str, Any] | None = None) -> CaptionRequest:
    return parse_request(read_body(fields, headers or {}), DEFAULTS, max_pictures=4)


def parse_json(document: Any) -> CaptionRequest:
    return parse({"body": bytearray(json.dumps(document).encode())})


def refused(code: str, fields: dict[str, Any], headers: dict[str, Any] | None = None) -> str:
    with pytest.raises(RequestRefusal) as caught:
        parse(fields, headers)
    assert caught.value.code == code
    return str(caught.value)


def outcome(act: Callable[[], Any]) -> Any:
    """What it returns, or its refusal; any other exception is a fault of the server."""
    try:
        return act()
    except Refusal as refusal:
        return refusal


# Hugging Face


@pytest.mark.parametrize("group", ["generate_kwargs", "generation_parameters", None])
def test_hugging_face_s_names_of_options(group: str | None):
    given = {
        "max_new_tokens": 20,
        "max_length": 60,
        "min_new_tokens": 3,
        "num_beams": 4,
        "num_return_sequences": 2,
        "repetition_penalty": 1.3,
        "no_repeat_ngram_size": 3,
        "length_penalty": 0.5,
        "early_stopping": True,
        "use_cache": False,
        "num_beam_groups": 1,
        "typical_p": None,
        "do_sample": False,
        "temperature": 1.0,
        "top_k": 50,
    }
    parameters = {group: given} if group else given
    request = parse_json({"inputs": TEXT, "parameters": parameters})
    options = GenerationOptions(
        max_tokens=20,
        min_tokens=3,
        num_beams=4,
        num_captions=2,
        repetition_penalty=1.3,
        no_repeat_ngram_size=3,
        length_penalty=0.5,
    )
    assert request == CaptionRequest([PICTURE], [options])


@pytest.mark.parametrize(
    ("given", "temperature", "top_k"),
    [
        ({"do_sample": True}, 1.0, 0),
        ({"do_sample": True, "temperature": 0.7, "top_k": 5}, 0.7, 5),
        ({"do_sample": False, "temperature": 0.7, "top_k": 5}, 0.0, 0),
        ({"temperature": 0.7}, 0.7, 0),
        ({"temperature": 1.0}, 0.0, 0),
        ({"temperature": 0, "top_k": 5}, 0.0, 0),
        ({"top_k": 5}, 1.0, 5),
    ],
)
def test_hugging_face_s_draws(given: dict[str, Any], temperature: float, top_k: int):
    [options] = parse_json({"inputs": TEXT, "parameters": {"generate_kwargs": given}}).options
    assert (options.temperature, options.top_k) == (temperature, top_k)


def test_hugging_face_s_options_of_its_own_server_are_accepted():
    document = {"inputs": TEXT, "options": {"wait_for_model": True, "use_cache": False}}
    assert parse_json(document) == CaptionRequest([PICTURE], [DEFAULTS])


def test_several_of_hugging_face_s_pictures_have_a_result_each():
    request = parse_json({"inputs": [TEXT, "no base64!", TEXT], "parameters": {"num_beams": 2}})
    assert request.form is Form.SEVERAL
    assert request.pictures[0] == request.pictures[2] == PICTURE
    assert isinstance(request.pictures[1], RequestRefusal)
    assert request.options == [GenerationOptions(num_beams=2)] * 3


def test_what_cannot_be_done_for_hugging_face_is_refused():
    for name, value in (("num_beam_groups", 2), ("typical_p", 0.5), ("beams", 2)):
        with pytest.raises(UnknownOption, match=name):
            parse_json({"inputs": TEXT, "parameters": {name: value}})
    with pytest.raises(BadOption, match="do_sample"):
        parse_json({"inputs": TEXT, "parameters": {"do_sample": "maybe"}})
    document = {"inputs": TEXT, "parameters": {"generate_kwargs": [1]}}
    assert "generate_kwargs" in refused("bad_json", {"body": document})
    refused("too_many_images", {"body": {"inputs": [TEXT] * 5}})


VALUES = st.none() | st.booleans() | st.integers(-2, 70) | st.floats(0, 2) | st.text(max_size=3)
NAMES = st.sampled_from(
    ["do_sample", "temperature", "top_k", "top_p", "seed", "max_length", "max_new_tokens"]
    + ["min_length", "num_return_sequences", "use_cache", "typical_p", "num_beams", "beams"]
)
MEMBERS = st.dictionaries(NAMES, VALUES, max_size=4)
GROUPS = st.fixed_dictionaries(
    {},
    optional={
        "generate_kwargs": MEMBERS | VALUES,
        "parameters": st.builds(dict, MEMBERS, generate_kwargs=MEMBERS) | MEMBERS | VALUES,
        "options": MEMBERS,
    },
)


@given(GROUPS)
def test_handler_and_gateway_read_hugging_face_s_options_alike(fields: dict[str, Any]):
    try:
        found: Any = handler_reader.captioner_options(fields)
    except (RequestRefusal, BadOption):
        found = None
    try:
        other: Any = gateway_reader.captioner_options(fields)
    except GatewayError:
        other = None
    assert found == other


# KServe and TensorFlow Serving


def tensor(*texts: str, shape: Any = -1, **more: Any) -> dict[str, Any]:
    return {"name": "a", "shape": shape, "datatype": "BYTES", "data": [*texts], **more}


@pytest.mark.parametrize("shape", [-1, [-1], [2], 2, [-1, 1], [1, -1], [-1, 2]])
def test_a_shape_of_a_tensor_may_leave_the_number_open(shape: Any):
    assert parse_json({"inputs": [tensor(TEXT, TEXT, shape=shape)]}).pictures == [PICTURE] * 2


@pytest.mark.parametrize("shape", [-2, [-1, 3], [-1, -1], "-1", None, True, 1, [0, -1]])
def test_a_shape_that_does_not_fit_is_refused(shape: Any):
    assert "inputs[0].shape" in refused(
        "bad_request", {"body": {"inputs": [tensor(TEXT, TEXT, shape=shape)]}}
    )


def test_the_text_of_a_tensor_needs_no_list():
    """`kubernetes/kserve/kf_request_json/v2/bert/bert_bytes_v2.json` of pytorch/serve is so."""
    document = {"id": "d3b1", "inputs": [{**tensor(), "data": TEXT}]}
    assert parse_json(document) == CaptionRequest([PICTURE], [DEFAULTS], Form.KSERVE_V2, "d3b1")


def test_the_model_that_kserve_s_client_names_is_no_option():
    document = {"model_name": "clipcap", "model_version": None, "inputs": [tensor(TEXT)]}
    assert parse_json(document) == CaptionRequest([PICTURE], [DEFAULTS], Form.KSERVE_V2)


def test_several_tensors_are_their_pictures_one_after_another():
    own = {"parameters": {"num_beams": 2}}
    request = parse_json({"inputs": [tensor(TEXT, TEXT), tensor(TEXT, **own)]})
    assert request.pictures == [PICTURE] * 3
    assert request.options == [DEFAULTS, DEFAULTS, GenerationOptions(num_beams=2)]
    message = refused("too_many_images", {"body": {"inputs": [tensor(*[TEXT] * 3)] * 2}})
    assert "1 to 4 pictures" in message


@pytest.mark.parametrize("shape", [-1, [2]])
def test_several_binary_tensors(shape: Any):
    blob = b"".join(len(each).to_bytes(4, "little") + each for each in (PICTURE, b"x"))
    one = {"name": "a", "shape": shape, "datatype": "BYTES"}
    one["parameters"] = {"binary_data_size": len(blob)}
    text = json.dumps({"inputs": [one, tensor(TEXT), one]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(text))}
    body = read_body({"body": text + blob + blob}, headers)
    request = parse_request(body, DEFAULTS, max_pictures=5)
    assert request.pictures == [PICTURE, b"x", PICTURE, PICTURE, b"x"]
    refused("too_many_images", {"body": text + blob + blob}, headers)
    refused("bad_request", {"body": text + blob}, headers)


@pytest.mark.parametrize("value", [TEXT, {"b64": TEXT}, {"base64": TEXT}])
@pytest.mark.parametrize("name", ["image", "data", "image_bytes", "b64", "base64"])
def test_members_that_hold_a_picture(name: str, value: Any):
    unread = {"signature_name": "serving_default", "metadata": {"file": "a.jpg"}}
    request = parse_json({name: value, **unread})
    assert request == CaptionRequest([PICTURE], [DEFAULTS])
    request = parse_json({"instances": [{name: value, "target": 0, "metadata": 5}], **unread})
    assert request == CaptionRequest([PICTURE], [DEFAULTS], Form.KSERVE_V1)


def test_two_members_with_pictures_are_refused():
    assert "image and b64" in refused("bad_request", {"body": {"image": TEXT, "b64": TEXT}})


# Pictures as text


FORMS = [
    TEXT,
    TEXT.rstrip("="),
    base64.urlsafe_b64encode(PICTURE).decode().rstrip("="),
    base64.encodebytes(PICTURE).decode(),
    f"data:image/jpeg;base64,{TEXT}",
    f"DATA:image/PNG;Base64,{TEXT}",
    f"data:image/jpeg;name=a.jpg;charset=utf-8;BASE64,{TEXT.rstrip('=')}",
    f"\n data:;base64,{TEXT}\n",
]


@pytest.mark.parametrize("text", FORMS)
def test_base64_is_read_wherever_a_picture_may_stand(text: str):
    for fields in (
        {"body": {"image": text}},
        {"body": text},  # as TorchServe decodes text/plain
        {"body": bytearray(text.encode())},
        {"data": text.encode()},
    ):
        assert parse(fields).pictures == [PICTURE]


def test_a_plus_that_a_form_has_made_a_space_is_restored():
    # A whole number of groups, so that the text ends with "++++".
    bytes_ = PICTURE + bytes(-len(PICTURE) % 3) + b"\xfb\xef\xbe" * 10
    text = base64.b64encode(bytes_).decode()
    assert text.endswith("++++")
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert parse({"data": text.replace("+", " ")}, headers).pictures == [bytes_]


@pytest.mark.parametrize("name", sorted(PICTURES))
def test_every_format_is_read_as_base64_and_as_bytes(name: str):
    data = PICTURES[name]
    assert parse({"body": data}).pictures == [data]
    for text in (base64.b64encode(data), base64.urlsafe_b64encode(data).rstrip(b"=")):
        assert parse({"body": text}).pictures == [data]


#: Beginnings of picture files, among them all that are base64 text by themselves.
MAGIC = st.sampled_from(
    [b"\xff\xd8\xff", b"\x89PNG", b"GIF87a", b"GIF89a", b"BM", b"II*\0", b"MM\0*", b"RIFFabcdWEBP"]
    + [b"abcdftypavif", b"abcdftypheic", b"abcdftypmif1", b"8BPS", b"qoif"]
)
BASE64 = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=", max_size=300)


@given(MAGIC, st.binary(max_size=50) | BASE64.map(str.encode))
def test_a_picture_is_never_taken_for_base64(magic: bytes, rest: bytes):
    assert picture_file(magic + rest, "data") == magic + rest


@given(st.binary(max_size=60) | BASE64.map(str.encode) | st.text(max_size=60).map(str.encode))
def test_what_is_no_picture_s_base64_is_left_as_it_is(data: bytes):
    found = outcome(lambda: picture_file(data, "data"))
    if isinstance(found, RequestRefusal):
        assert found.code in ("bad_base64", "no_urls")
    else:
        assert found == data or begins_as_known_format(found.lstrip())


def test_base64_that_is_damaged_further_on_is_named():
    assert "not valid base64" in refused("bad_base64", {"body": TEXT[:400].encode() + b"???"})
    assert "data:image" in refused("bad_base64", {"body": b"data:image/png,AAAA"})
    assert "data:image" in refused("bad_base64", {"body": {"image": "data:image/png;base64"}})


# URLs


@pytest.mark.parametrize(
    "fields",
    [
        {"body": {"image": URL}},
        {"body": {"url": URL}},
        {"body": {"urls": [URL]}},
        {"body": {"inputs": URL.upper()}},
        {"body": URL.encode()},
        {"body": f" {URL}\n"},
        {"data": b"s3://bucket/photo.jpg"},
        {"url": URL.encode()},
    ],
)
def test_a_url_is_refused_with_who_fetches_it(fields: dict[str, Any]):
    assert "GATEWAY_FETCH_URLS" in refused("no_urls", fields)


@pytest.mark.parametrize(
    "document",
    [{"images": [URL, TEXT]}, {"instances": [{"url": URL}, TEXT]}, {"inputs": [tensor(URL, TEXT)]}],
)
def test_a_url_among_several_pictures_concerns_it_alone(document: dict[str, Any]):
    pictures = parse_json(document).pictures
    assert isinstance(pictures[0], RequestRefusal)
    assert pictures[0].code == "no_urls"
    assert pictures[1] == PICTURE


# Nothing that a client sends is a fault of the server


KNOWN: list[Any] = [
    {"image": "AAAA", "options": {"num_beams": 2}, "metadata": {}},
    {"images": ["AAAA", {"image": "AAAA", "options": {"num_beams": 2}}]},
    {"instances": [{"data": {"b64": "AAAA"}}, "AAAA"], "parameters": {"max_tokens": 3}},
    {"inputs": "AAAA", "parameters": {"generate_kwargs": {"do_sample": True, "top_k": 3}}},
    {"inputs": ["AAAA", "AAAA"], "options": {"use_cache": True}},
    {"id": "a", "inputs": [tensor("AAAA"), tensor("AAAA", parameters={"num_beams": 2})]},
    {"inputs": [{**tensor(), "parameters": {"binary_data_size": 8}}], "outputs": []},
    {"url": URL},
    {"image": "AAAA", "features": True, "explain": True, "grid": 4, "timeout_ms": 3},
]
WORDS = sorted(
    {word for each in KNOWN for word in json.dumps(each).split('"') if word.isidentifier()}
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([*WORDS, "AAAA", "=", "data:", "data:;base64,AA", URL, "\ud800"])
)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container of a document with a key of it."""
    keys = value if isinstance(value, dict) else range(len(value) if isinstance(value, list) else 0)
    return [place for key in keys for place in [(value, key), *places(value[key])]]


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    document = copy.deepcopy(draw(st.sampled_from(KNOWN)))
    for _ in range(draw(st.integers(1, 3))):
        holder, key = draw(st.sampled_from(places(document) or [({"": document}, "")]))
        match draw(st.sampled_from(["replace", "remove", "add"])):
            case "replace":
                holder[key] = draw(JSON)
            case "remove":
                del holder[key]
            case "add" if isinstance(holder, dict):
                holder[draw(st.sampled_from(WORDS))] = draw(JSON)
            case "add":
                holder.append(draw(JSON))
    return document


@settings(max_examples=500, deadline=None)
@given(mutated() | JSON, st.binary(max_size=12), st.booleans(), st.booleans())
def test_no_document_is_a_fault_of_the_server(
    document: Any, binary: bytes, in_binary: bool, parsed: bool
):
    text = json.dumps(document).encode()
    headers = {"Inference-Header-Content-Length": str(len(text))} if in_binary else {}
    body = document if parsed else text + (binary if in_binary else b"")
    found = outcome(lambda: parse({"body": body}, headers))
    if isinstance(found, Refusal):
        assert failure_of(found).status < 500
    else:
        assert len(found.pictures) == len(found.options) >= 1


@settings(deadline=None)
@given(st.text(max_size=40) | st.none() | st.integers())
def test_no_text_is_a_fault_of_the_server(value: Any):
    found = outcome(lambda: decode_base64(value, "image"))
    assert isinstance(found, bytes) or found.code in ("bad_base64", "no_urls")
