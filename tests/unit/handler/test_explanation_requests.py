"""Every form in which an explanation may be asked for, and what is refused."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from handler.requests.caption_request import CaptionRequest, ExplanationRequest, RequestRefusal
from handler.requests.fields import parse_request, read_body
from model.explanation import DEFAULT_GRID, HIGHEST_GRID
from model.options import BadOption, GenerationOptions, UnknownOption

PICTURE = b"\xff\xd8\xff\xe0 the bytes of a picture"
TEXT = base64.b64encode(PICTURE).decode()
USUAL = ExplanationRequest(DEFAULT_GRID, "json")
ROUTE = {"explain": "True"}  # as TorchServe marks its route /explanations


def parse(fields: dict[str, Any], headers: dict[str, Any] | None = None) -> CaptionRequest:
    return parse_request(read_body(fields, headers or {}), GenerationOptions(), max_pictures=3)


def parse_json(document: Any, headers: dict[str, Any] | None = None) -> CaptionRequest:
    return parse({"body": bytearray(json.dumps(document).encode())}, headers)


def test_the_route_of_torchserve_asks_by_itself():
    assert parse({"body": PICTURE}, ROUTE).explanation == USUAL
    assert parse({"body": PICTURE}, {"explain": "False"}).explanation is None
    assert parse_json({"image": TEXT, "grid": 3}, ROUTE).explanation == ExplanationRequest(
        3, "json"
    )
    assert parse({"data": PICTURE, "explain": b"true"}, ROUTE).explanation == USUAL


@pytest.mark.parametrize("value", [b"true", bytearray(b"True"), "true"])
def test_a_field_of_a_form_or_a_key_of_grpc(value: Any):
    fields = {"data": PICTURE, "explain": value, "grid": b"4", "format": b"png", "num_beams": b"2"}
    request = parse(fields)
    assert request.explanation == ExplanationRequest(4, "png")
    assert request.options == [GenerationOptions(num_beams=2)]


@pytest.mark.parametrize(
    "document",
    [
        {"explain": True, "grid": 4},
        {"options": {"explain": True, "grid": 4}},
        {"explain": True, "parameters": {"grid": 4}},
        {"explain": "true", "grid": "4"},
    ],
)
def test_members_of_json(document: dict[str, Any]):
    request = parse_json({"image": TEXT, **document, "num_beams": 3})
    assert request.explanation == ExplanationRequest(4, "json")
    assert request.options == [GenerationOptions(num_beams=3)]


def test_json_overrides_the_parameters_of_a_query():
    body = bytearray(json.dumps({"image": TEXT, "grid": 5}).encode())
    request = parse({"explain": b"true", "grid": b"3", "body": body})
    assert request.explanation == ExplanationRequest(5, "json")


def test_without_it_nothing_is_explained():
    assert parse({"body": PICTURE}).explanation is None
    assert parse({"data": PICTURE, "explain": b"false"}).explanation is None
    assert parse_json({"image": TEXT, "explain": False}).explanation is None


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("explain", {"explain": b"yes"}),
        ("explain", {"explain": b""}),
        ("grid", {"explain": b"true", "grid": b"1"}),
        ("grid", {"explain": b"true", "grid": str(HIGHEST_GRID + 1).encode()}),
        ("grid", {"explain": b"true", "grid": b"8.5"}),
        ("grid", {"explain": b"true", "grid": b"9" * 5000}),
        ("grid", {"explain": b"true", "grid": "٣".encode() * 20}),
        ("grid", {"explain": b"true", "grid": "²".encode()}),
        ("format", {"explain": b"true", "format": b"svg"}),
        ("grid", {"grid": b"4"}),
        ("format", {"format": b"png", "explain": b"false"}),
    ],
)
def test_a_bad_value_is_named(name: str, fields: dict[str, Any]):
    with pytest.raises(BadOption, match=f"option {name} is ") as caught:
        parse({"data": PICTURE, **fields})
    assert caught.value.name == name


@pytest.mark.parametrize("value", [None, 1, 0, [], {}, "maybe", 10**400])
def test_a_bad_explain_in_json_is_named(value: Any):
    with pytest.raises(BadOption, match="option explain is .*true or false"):
        parse_json({"image": TEXT, "explain": value})


@pytest.mark.parametrize("value", [None, 2.0, True, [8], {"rows": 8}, "eight", -3, 10**400])
def test_a_bad_grid_in_json_is_named(value: Any):
    with pytest.raises(BadOption, match=f"option grid is .*from 2 to {HIGHEST_GRID}"):
        parse_json({"image": TEXT, "explain": True, "grid": value})


def test_the_route_cannot_be_asked_for_none():
    with pytest.raises(BadOption, match="ask /predictions"):
        parse_json({"image": TEXT, "explain": False}, ROUTE)


@pytest.mark.parametrize(
    "document",
    [
        {"instances": [{"data": TEXT}], "explain": True},
        {"instances": [{"data": TEXT}, {"data": TEXT}], "parameters": {"explain": True}},
        {
            "inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": [TEXT]}],
            "parameters": {"explain": True},
        },
    ],
)
def test_the_forms_of_kserve_are_refused(document: dict[str, Any]):
    for given, headers in ((document, None), ({**document, "explain": True}, ROUTE)):
        with pytest.raises(RequestRefusal, match='"explain": true') as caught:
            parse_json(given, headers)
        assert caught.value.code == "no_explanations"


def test_other_faults_of_a_request_are_told_first():
    with pytest.raises(RequestRefusal) as caught:
        parse({}, ROUTE)
    assert caught.value.code == "no_image"
    with pytest.raises(RequestRefusal) as caught:
        parse_json([1], ROUTE)
    assert caught.value.code == "bad_json"
    with pytest.raises(UnknownOption, match="beams"):
        parse({"data": PICTURE, "explain": b"true", "beams": b"3"})
