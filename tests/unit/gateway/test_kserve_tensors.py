"""Tensors of KServe v2 in JSON and in binary form."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client import Caption, CaptionResult
from gateway.errors import GatewayError
from gateway.routes.kserve_tensors import InferRequest, infer_reply

RESULT = CaptionResult((Caption("a ship", 0.5, -1.25, 3), Caption("ein Föhn", 0.25, -2, 4)), "", "")


def body(of_request: dict[str, Any] | None = None, **tensor: Any) -> bytes:
    given_tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": ["AAAA"], **tensor}
    return json.dumps({"inputs": [given_tensor], "parameters": of_request}).encode()


@given(st.lists(st.binary(max_size=20), max_size=5))
def test_binary_elements_are_read(pictures: list[bytes]):
    blob = b"".join(struct.pack("<I", len(each)) + each for each in pictures)
    text = body(shape=[len(pictures)], parameters={"binary_data_size": len(blob)})
    assert InferRequest(text + blob, str(len(text))).pictures == pictures


def test_elements_in_json_may_be_nested():
    for data in (["AAAA", "AAAA"], [["AAAA"], ["AAAA"]]):
        assert InferRequest(body(shape=[2, 1], data=data), None).pictures == [bytes(3)] * 2


def test_parameters_are_options_but_for_those_of_the_protocol():
    tensor = json.loads(body({"num_beams": 2, "binary_data_output": True}))
    tensor["inputs"][0]["parameters"] = {"num_captions": 1, "content_type": "base64"}
    request = InferRequest(json.dumps(tensor).encode(), None)
    assert request.options == [("num_beams", 2), ("num_captions", 1)]
    assert set(request.outputs.values()) == {True}


def test_the_reply_is_json_or_binary_for_each_output():
    document = json.loads(body())
    document["outputs"] = [
        {"name": "tokens", "parameters": {"binary_data": True}},
        {"name": "confidence"},
        {"name": "caption", "parameters": {"binary_data": True}},
    ]
    request = InferRequest(json.dumps(document).encode(), None)
    reply, length = infer_reply(request, [RESULT], {"name": "clipcap", "version": "1.0"})
    assert length is not None
    tokens, confidence, caption = json.loads(reply[:length])["outputs"]
    assert tokens == {
        "name": "tokens",
        "datatype": "INT64",
        "shape": [1, 2],
        "parameters": {"binary_data_size": 16},
    }
    assert confidence["data"] == [0.5, 0.25]
    assert caption["parameters"] == {"binary_data_size": 4 + 6 + 4 + 9}
    texts = struct.pack("<I", 6) + b"a ship" + struct.pack("<I", 9) + "ein Föhn".encode()
    assert reply[length:] == struct.pack("<qq", 3, 4) + texts


def test_without_binary_outputs_there_is_no_length():
    reply, length = infer_reply(
        InferRequest(body(), None), [RESULT], {"name": "clipcap", "version": "1.0"}
    )
    assert length is None
    assert [each["name"] for each in json.loads(reply)["outputs"]] == [
        "caption",
        "confidence",
        "log_prob",
        "tokens",
        "finish_reason",
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [2]},
        {"shape": [1] * 6},
        {"shape": [-1, -1]},
        {"shape": [-1, 2]},
        {"shape": [-2]},
        {"shape": [1.0]},
        {"shape": [10**400, 0]},
        {"shape": 2},
        {"shape": "1"},
        {"datatype": "FP32"},
        {"datatype": 5},
        {"parameters": {"binary_data_size": 1}},
        {"parameters": 5},
    ],
)
def test_a_tensor_of_another_form_is_refused(changes: dict[str, Any]):
    with pytest.raises(GatewayError) as raised:
        InferRequest(body(**changes), None)
    assert raised.value.status_code == 400


@pytest.mark.parametrize("data", [None, [5], ["no base64!"]])
def test_an_element_that_is_no_picture_is_an_error_of_its_own(data: Any):
    [picture] = InferRequest(body(data=data), None).pictures
    assert isinstance(picture, GatewayError)
    assert picture.status_code == 400


def test_a_reply_has_a_row_for_a_picture_that_failed():
    request = InferRequest(body(), None)
    caption = Caption("a boat", 0.5, -1.0, 3, "end")
    features = {"shape": [2], "data": [0.25, 0.5]}
    good = CaptionResult((caption,), "m", "1", (), features)
    bad = GatewayError(400, "image_undecodable", "no picture")
    content, length = infer_reply(request, [bad, good], {"name": "m", "version": "1"})
    assert length is None
    outputs = {each["name"]: each for each in json.loads(content)["outputs"]}
    assert outputs["caption"]["shape"] == [2, 1]
    assert outputs["caption"]["data"] == ["", "a boat"]
    assert outputs["finish_reason"]["data"] == ["error", "end"]
    assert json.loads(outputs["error"]["data"][0])["code"] == "image_undecodable"
    assert outputs["error"]["data"][1] == ""
    assert outputs["features"]["shape"] == [2, 2]
    assert outputs["features"]["data"] == [[0.0, 0.0], [0.25, 0.5]]


@pytest.mark.parametrize("shape", [-1, [-1], [-1, 1], 2, [2]])
@pytest.mark.parametrize("binary", [True, False])
def test_a_shape_may_leave_the_number_open(shape: Any, binary: bool):
    if not binary:
        found = InferRequest(body(shape=shape, data=["AAAA", "BBBB"]), None)
        assert [len(each) for each in found.pictures] == [3, 3]
        return
    blob = b"".join(struct.pack("<I", 2) + each for each in (b"ab", b"cd"))
    tensor = {"name": "image", "shape": shape, "datatype": "BYTES"}
    tensor["parameters"] = {"binary_data_size": len(blob)}
    text = json.dumps({"inputs": [tensor]}).encode()
    assert InferRequest(text + blob, str(len(text))).pictures == [b"ab", b"cd"]


def test_several_tensors_are_their_pictures_one_after_another():
    def tensor(*parts: bytes, **parameters: Any) -> tuple[dict[str, Any], bytes]:
        blob = b"".join(struct.pack("<I", len(each)) + each for each in parts)
        known = {"binary_data_size": len(blob), **parameters}
        shape = [len(parts)]
        return {"name": "a", "shape": shape, "datatype": "BYTES", "parameters": known}, blob

    def read(*tensors: tuple[dict[str, Any], bytes], more: bytes = b"") -> InferRequest:
        text = json.dumps({"inputs": [each for each, _ in tensors]}).encode()
        return InferRequest(text + b"".join(each for _, each in tensors) + more, str(len(text)))

    in_json = {"name": "b", "shape": -1, "datatype": "BYTES", "data": ["AAAA"]}
    found = read(tensor(b"ab", b"cd"), (in_json, b""), tensor(b"e"))
    assert found.pictures == [b"ab", b"cd", bytes(3), b"e"]
    assert read(tensor(b"a", num_beams=2), tensor(b"b", num_beams=2)).options == [("num_beams", 2)]
    for message, wrong in (
        ("different parameters", lambda: read(tensor(b"a", num_beams=2), tensor(b"b"))),
        ("1 bytes follow", lambda: read(tensor(b"a"), more=b"x")),
        ("but 0 bytes are left", lambda: read(tensor(b"a"), (tensor(b"b")[0], b""))),
    ):
        with pytest.raises(GatewayError, match=message):
            wrong()
