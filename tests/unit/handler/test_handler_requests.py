"""Every form in which a request may arrive, read as TorchServe hands it over."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from handler.requests.caption_request import CaptionRequest, Form, RequestRefusal
from handler.requests.fields import is_rest, parse_request, read_body
from model.options import BadOption, GenerationOptions, UnknownOption

PICTURE = b"\xff\xd8\xff\xe0 the bytes of a picture"
TEXT = base64.b64encode(PICTURE).decode()
DEFAULTS = GenerationOptions()


def parse(fields: dict[str, Any], headers: dict[str, Any] | None = None) -> CaptionRequest:
    return parse_request(read_body(fields, headers or {}), DEFAULTS, max_pictures=3)


def parse_json(document: Any) -> CaptionRequest:
    return parse({"body": bytearray(json.dumps(document).encode())})


def refused(code: str, fields: dict[str, Any], headers: dict[str, Any] | None = None) -> str:
    with pytest.raises(RequestRefusal) as caught:
        parse(fields, headers)
    assert caught.value.code == code
    return str(caught.value)


def as_json(value: Any) -> dict[str, Any]:
    return {"body": bytearray(value if isinstance(value, bytes) else json.dumps(value).encode())}


@pytest.mark.parametrize("field", ["body", "data", "image", "file"])
@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_the_bytes_of_a_body_a_form_or_a_grpc_message_are_the_picture(field: str, kind: type):
    request = parse({field: kind(PICTURE)})
    assert request == CaptionRequest([PICTURE], [DEFAULTS])


@pytest.mark.parametrize(
    "content_type", ["", "image/jpeg", "application/octet-stream", "application/json", "text/plain"]
)
def test_bytes_of_a_picture_are_one_whatever_their_content_type(content_type: str):
    headers = {"body": {"content-type": content_type}, "Content-Type": content_type}
    assert parse({"body": bytearray(PICTURE)}, headers).pictures == [PICTURE]


def test_a_body_that_torchserve_decoded_as_text_becomes_bytes_again():
    assert parse({"body": "GIF89a..."}).pictures == [b"GIF89a..."]


def test_options_come_as_fields_beside_the_picture():
    fields = {"data": PICTURE, "num_beams": bytearray(b"3"), "num_captions": b"2"}
    assert parse(fields).options == [GenerationOptions(num_beams=3, num_captions=2)]


def test_the_name_that_a_route_adds_is_no_option():
    assert parse({"model_name": b"clipcap", "body": PICTURE}).options == [DEFAULTS]


@pytest.mark.parametrize("document", [{"options": {"num_beams": 2}}, {"num_beams": 2}])
def test_our_json_form(document: dict[str, Any]):
    request = parse_json({"image": TEXT, **document})
    assert request == CaptionRequest([PICTURE], [GenerationOptions(num_beams=2)])


def test_json_that_torchserve_parsed_is_read_the_same():
    assert parse({"body": {"image": TEXT}}).pictures == [PICTURE]


def test_json_in_a_grpc_field_is_read_the_same():
    assert parse({"data": json.dumps({"image": TEXT}).encode()}).pictures == [PICTURE]


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        "data:image/jpeg;base64," + TEXT,
        "\n".join(TEXT[i : i + 20] for i in range(0, len(TEXT), 20)),
        base64.urlsafe_b64encode(PICTURE).decode(),
    ],
)
def test_base64_with_line_breaks_urlsafe_letters_or_a_data_prefix(text: str):
    assert parse_json({"image": text}).pictures == [PICTURE]


def test_json_overrides_the_parameters_of_a_query():
    fields = {"num_beams": b"2", "max_tokens": b"9", **as_json({"image": TEXT, "num_beams": 3})}
    assert parse(fields).options == [GenerationOptions(num_beams=3, max_tokens=9)]


@pytest.mark.parametrize("holder", [{"data": TEXT}, {"data": {"b64": TEXT}}, {"b64": TEXT}, TEXT])
def test_kserve_v1(holder: Any):
    request = parse_json({"instances": [holder]})
    assert request == CaptionRequest([PICTURE], [DEFAULTS], Form.KSERVE_V1)


def test_kserve_v1_options_of_all_and_of_one():
    request = parse_json(
        {
            "parameters": {"num_beams": 3},
            "instances": [{"data": TEXT}, {"data": TEXT, "options": {"max_tokens": 7}}],
        }
    )
    three = GenerationOptions(num_beams=3)
    assert request.options == [three, GenerationOptions(num_beams=3, max_tokens=7)]


@pytest.mark.parametrize(
    ("shape", "data"), [([1], [TEXT]), ([1, 1], [[TEXT]]), ([2, 1], [[TEXT], [TEXT]])]
)
def test_kserve_v2(shape: list[int], data: Any):
    tensor = {"name": "image", "shape": shape, "datatype": "BYTES", "data": data}
    request = parse_json({"id": "a", "inputs": [tensor], "parameters": {"num_beams": 2}})
    count = shape[0]
    options = [GenerationOptions(num_beams=2)] * count
    assert request == CaptionRequest([PICTURE] * count, options, Form.KSERVE_V2, "a")


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ({}, "no_image"),
        ([1], "bad_json"),
        ("text", "bad_json"),
        ({"image": None}, "bad_base64"),
        ({"image": 3}, "bad_base64"),
        ({"image": "??"}, "bad_base64"),
        ({"image": "aaaaa"}, "bad_base64"),
        ({"image": "é"}, "bad_base64"),
        ({"image": TEXT, "options": [1]}, "bad_json"),
        ({"instances": []}, "no_image"),
        ({"instances": {}}, "no_image"),
        ({"instances": [{}]}, "no_image"),
        ({"instances": [{"data": TEXT, "b64": TEXT}]}, "no_image"),
        ({"instances": [{"data": TEXT}] * 4}, "too_many_images"),
        ({"inputs": []}, "bad_request"),
        ({"inputs": [3]}, "bad_request"),
        ({"inputs": [{"datatype": "FP32", "shape": [1], "data": [1]}]}, "bad_request"),
        ({"inputs": [{"datatype": "BYTES", "shape": [2], "data": [TEXT]}]}, "bad_request"),
        ({"inputs": [{"datatype": "BYTES", "shape": "1", "data": [TEXT]}]}, "bad_request"),
        ({"inputs": [{"datatype": "BYTES", "shape": [0], "data": []}]}, "no_image"),
        ({"inputs": [{"datatype": "BYTES", "shape": [-1, -1], "data": [TEXT]}]}, "bad_request"),
        ({"inputs": [{"datatype": "BYTES", "shape": [9] * 300_000, "data": []}]}, "bad_request"),
        ({"inputs": [{"datatype": ["BYTES"], "shape": [1], "data": [TEXT]}]}, "bad_request"),
        ({"inputs": [{"datatype": "BYTES", "shape": [1], "data": [TEXT]}], "id": 3}, "bad_request"),
    ],
)
def test_json_that_does_not_say_what_to_caption_is_refused(document: Any, code: str):
    headers = {"body": {"content-type": "application/json"}}
    refused(code, as_json(document), headers)
    if not isinstance(document, str):
        refused(code, {"body": document}, headers)  # as TorchServe may have parsed it


@pytest.mark.parametrize("place", ["num_beams", "datatype"])
def test_lists_nested_as_deep_as_json_allows_are_refused(place: str):
    """Python reads some depths that it cannot write out again."""
    for depth in range(800, 1000, 3):
        deep = b"[" * depth + b"]" * depth
        body = b'{"image": "", "num_beams": %b}' % deep
        if place == "datatype":
            body = b'{"inputs": [{"shape": [1], "data": [""], "datatype": %b}]}' % deep
        with pytest.raises((RequestRefusal, BadOption)):
            parse(as_json(body))


@pytest.mark.parametrize("body", [b"{", b'{"image": "', b"[" * 100_000, b'{"a": \xff}'])
def test_broken_json_is_refused_by_its_looks(body: bytes):
    refused("bad_json", as_json(body))


@pytest.mark.parametrize("body", [b"hello", b"tru"])
def test_broken_json_is_refused_by_its_content_type(body: bytes):
    refused("bad_json", as_json(body), {"body": {"content-type": "application/json"}})


def test_two_pictures_are_refused():
    assert "data and image" in refused("bad_request", {"data": PICTURE, "image": PICTURE})


def test_no_picture_is_refused():
    assert "curl -T" in refused("no_image", {})
    assert "curl -T" in refused("no_image", {"num_beams": b"3"})


def test_a_picture_lost_in_what_curl_calls_a_form_is_explained():
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Host": "x"}
    assert "--data-binary" in refused("no_image", {}, headers)


def test_unknown_and_bad_options_are_told_apart():
    for fields in ({"data": PICTURE, "beams": b"3"}, as_json({"image": TEXT, "beams": 3})):
        with pytest.raises(UnknownOption, match="beams"):
            parse(fields)
    for value in (b"9", b"x", b"", b"1e999", b"NaN", b"\xff"):
        with pytest.raises(BadOption, match="num_beams"):
            parse({"data": PICTURE, "num_beams": value})
    for number in (9, 2.5, True, None, [3], {}, 10**4000):
        with pytest.raises(BadOption, match="num_beams"):
            parse_json({"image": TEXT, "num_beams": number})
    for words in ("", "a \ud800", 5, "a" * 201):
        with pytest.raises(BadOption, match="prompt"):
            parse_json({"image": TEXT, "prompt": words})


def test_rest_is_told_from_grpc_by_its_headers():
    assert is_rest({"body": {"content-type": ""}, "Content-Length": "3"})
    assert not is_rest({"data": {"content-type": ""}, "Host": {"content-type": ""}})
    assert not is_rest({"ts_request_sequence_id": "a", "data": {"content-type": ""}})


def test_a_describe_call_has_its_header_and_nothing_else():
    described = CaptionRequest([], [], Form.DESCRIPTION)
    assert parse({}, {"describe": "True"}) == described
    assert parse({"body": PICTURE}, {"describe": "True"}).form is Form.PLAIN
    refused("no_image", {})


def test_the_field_that_tensorflow_serving_s_clients_send_is_accepted():
    document = {"signature_name": "serving_default", "instances": [{"data": TEXT}]}
    assert parse_json(document) == CaptionRequest([PICTURE], [DEFAULTS], Form.KSERVE_V1)


def test_parameters_of_a_kserve_tensor_are_options():
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [TEXT]}
    tensor["parameters"] = {"num_beams": 2, "content_type": "base64"}
    document = {"inputs": [tensor], "parameters": {"num_beams": 3, "max_tokens": 9}}
    assert parse_json(document).options == [GenerationOptions(num_beams=2, max_tokens=9)]
    tensor["parameters"] = {"beams": 2}
    with pytest.raises(UnknownOption, match="beams"):
        parse_json(document)


def test_a_misspelt_field_of_a_kserve_tensor_is_refused():
    tensor = {"shape": [1], "datatype": "BYTES", "data": [TEXT], "parameter": {"num_beams": 2}}
    assert "'parameter'" in refused("bad_request", as_json({"inputs": [tensor]}))


BOUNDARY = "----------------------------0123456789abcdef"


def form(fields: dict[str, Any], length: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A form as TorchServe hands it over, and its headers."""
    content_type = f"multipart/form-data; boundary={BOUNDARY}"
    return fields, {"Host": "x", "content-length": str(length), "Content-Type": content_type}


def length_of(*fields: tuple[str, bytes]) -> int:
    """Bytes of a form with these fields, each with a long file name and a content type."""
    head = (
        "--{}\r\nContent-Disposition: form-data; name=\"{}\"; filename*=utf-8''{}\r\n"
        "Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n\r\n\r\n"
    )
    heads = (head.format(BOUNDARY, name, "%E3%81%82" * 85) for name, _ in fields)
    return sum(map(len, heads)) + sum(len(value) for _, value in fields) + len(BOUNDARY) + 6


def test_a_form_of_which_a_picture_was_dropped_is_refused():
    pictures = [bytes(2000), bytes(3000)]
    fields, headers = form({"data": pictures[1]}, length_of(*(("data", each) for each in pictures)))
    message = refused("bad_request", fields, headers)
    assert "only 3000 of them are in the fields that arrived (data)" in message


def test_a_form_that_arrived_as_a_whole_is_read():
    small = {f"option{n}": b"1" for n in range(50)}
    for fields in ({"data": PICTURE}, {"data": b""}, {"data": PICTURE, **small}):
        body = read_body(*form(fields, length_of(*fields.items())))
        assert body.content == fields["data"]
    assert read_body(*form({"data": {"image": TEXT}}, 9000)).content == {"image": TEXT}
    assert read_body(*form({"data": "text of a form"}, length_of(("data", b"text of a form"))))


def test_the_length_of_what_is_no_form_is_not_compared():
    length = {"Content-Length": "1000000"}
    assert parse({"body": PICTURE}, {**length, "Content-Type": "image/jpeg"}).pictures == [PICTURE]
    assert parse({"data": PICTURE}, {"Content-Length": {"content-type": ""}}).pictures == [PICTURE]


@pytest.mark.parametrize(
    "body",
    [
        b'{"image": "%b", "image": "%b"}',
        b'{"instances": [{"data": "%b", "data": "%b"}]}',
        b'{"inputs": [{"datatype": "BYTES", "shape": [1], "data": ["%b"], "data": ["%b"]}]}',
    ],
)
def test_two_pictures_under_one_name_in_json_are_refused(body: bytes):
    message = refused("bad_request", as_json(body % (TEXT.encode(), TEXT.encode())))
    assert "twice; send each name once" in message


def test_json_of_a_million_objects_is_refused_before_it_is_parsed():
    many = b'{"image": "", "x": [' + b"{}," * 1_000_000 + b"1]}"
    assert "has 1000001 objects; the limit is 1000" in refused("bad_json", {"body": many})


#: What `tritonclient` 2.73 adds to a request by itself, or for its arguments.
TRITON = {
    "binary_data_output": True,
    "sequence_id": 7,
    "sequence_start": True,
    "sequence_end": True,
    "priority": 1,
    "timeout": 1_000_000,
}


def test_parameters_of_the_kserve_protocol_are_no_options():
    tensor: dict[str, Any] = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [TEXT]}
    tensor["parameters"] = {"content_type": "base64", "max_tokens": 9}
    document = {"inputs": [tensor], "parameters": {**TRITON, "num_beams": 2}}
    document["outputs"] = [{"name": "caption", "parameters": {"binary_data": False}}]
    assert parse_json(document).options == [GenerationOptions(num_beams=2, max_tokens=9)]
    document["parameters"] = {**TRITON, "beams": 2}
    with pytest.raises(UnknownOption, match="beams"):
        parse_json(document)


def binary_request(
    pictures: list[bytes], length: str | None = None, **changes: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A KServe v2 request with binary tensors, as `tritonclient` sends it, and its headers."""
    binary = b"".join(len(each).to_bytes(4, "little") + each for each in pictures)
    tensor = {"name": "image", "shape": [len(pictures)], "datatype": "BYTES"}
    tensor |= {"parameters": {"binary_data_size": len(binary)}, **changes}
    document = {"id": "a", "inputs": [tensor], "parameters": {**TRITON, "num_beams": 2}}
    text = json.dumps(document).encode()
    headers = {"inference-header-content-length": length or str(len(text)), "Host": "x"}
    return {"body": bytearray(text + binary)}, headers


@pytest.mark.parametrize("pictures", [[PICTURE], [PICTURE, b"", b"{another"]])
def test_kserve_v2_with_binary_tensors(pictures: list[bytes]):
    request = parse(*binary_request(pictures))
    options = [GenerationOptions(num_beams=2)] * len(pictures)
    assert request == CaptionRequest(pictures, options, Form.KSERVE_V2, "a")


@pytest.mark.parametrize(
    ("length", "changes", "code", "said"),
    [
        ("9999", {}, "bad_request", "Inference-Header-Content-Length is '9999'"),
        ("-1", {}, "bad_request", "Inference-Header-Content-Length is '-1'"),
        ("9" * 5000, {}, "bad_request", "Inference-Header-Content-Length is '999"),
        ("7", {}, "bad_json", "not valid JSON"),
        (None, {"parameters": {}}, "bad_request", "31 bytes follow the JSON document"),
        (None, {"parameters": {"binary_data_size": 30}}, "bad_request", "must be that number"),
        (None, {"parameters": {"binary_data_size": "31"}}, "bad_request", "must be that number"),
        (None, {"data": [TEXT]}, "bad_request", 'without "data"'),
        (None, {"shape": [2]}, "bad_request", "is [2], but the binary data has 1"),
        (None, {"shape": [0]}, "no_image", "must be that of 1 to 3 pictures"),
        (None, {"shape": [4]}, "too_many_images", "must be that of 1 to 3 pictures"),
        (None, {"shape": [10**4000] * 5}, "too_many_images", "1 to 3 pictures"),
        (None, {"datatype": "UINT8"}, "bad_request", 'must be "BYTES"'),
    ],
)
def test_binary_tensors_that_do_not_fit_are_refused(
    length: str | None, changes: dict[str, Any], code: str, said: str
):
    assert len(PICTURE) == 27
    assert said in refused(code, *binary_request([PICTURE], length, **changes))


def test_binary_data_behind_another_document_is_refused():
    text = json.dumps({"image": TEXT}).encode()
    headers = {"Inference-Header-Content-Length": str(len(text))}
    assert "3 bytes follow" in refused("bad_request", {"body": text + b"abc"}, headers)
    assert parse({"body": text}, headers).pictures == [PICTURE]


def test_the_form_of_a_request_is_known_although_it_is_refused():
    tensor = {"shape": [1], "datatype": "FP32", "data": [1]}
    for document, form_ in (
        ({"inputs": [tensor]}, Form.KSERVE_V2),
        ({"inputs": 3}, Form.KSERVE_V2),
        ({"instances": 3}, Form.KSERVE_V1),
        ({"image": 3}, Form.PLAIN),
        ([1], Form.PLAIN),
    ):
        assert read_body(as_json(document), {}).form is form_
