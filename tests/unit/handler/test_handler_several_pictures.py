"""Several pictures in a request, features beside captions, and a request's own time limit."""

from __future__ import annotations

import base64
import itertools
import json
from typing import Any

import numpy as np
import pytest
import torch

from handler.caption_handler import CaptionHandler
from model.image.decode import open_image
from model.image.preprocessing import to_pixels
from tests.pictures import broken, sound
from tests.unit.handler.test_handler import (  # noqa: F401  (fixtures)
    PNG_TEXT,
    answer,
    artifact,
    captioner,
)

JPEG_TEXT = base64.b64encode(sound()["jpeg"]).decode()
EMPTY, DAMAGED = "", base64.b64encode(b"GIF89a nonsense").decode()


def asked(captioner: CaptionHandler, document: dict[str, Any]) -> tuple[int, dict[str, Any]]:  # noqa: F811
    ((status, body, _),) = answer(captioner, [{"body": json.dumps(document).encode()}])
    return status, body


def test_each_picture_has_a_result_of_its_own(captioner: CaptionHandler):  # noqa: F811
    pictures: list[Any] = [PNG_TEXT, DAMAGED, {"image": JPEG_TEXT, "num_beams": 1}, 3, EMPTY]
    status, body = asked(captioner, {"images": pictures, "options": {"num_beams": 2}})
    assert status == 200
    assert (body["succeeded"], body["failed"]) == (2, 3)
    assert body["model"]["name"] == "clipcap"
    alone = [
        asked(captioner, {"image": PNG_TEXT, "num_beams": 2})[1],
        asked(captioner, {"image": JPEG_TEXT, "num_beams": 1})[1],
    ]
    for found, expected in zip(body["results"][::2][:2], alone, strict=True):
        assert found["caption"] == expected["caption"]
    codes = [result["error"]["code"] for result in body["results"] if "error" in result]
    assert codes == ["image_undecodable", "bad_base64", "empty"]


def test_every_form_of_broken_picture_fails_alone(captioner: CaptionHandler):  # noqa: F811
    for data, status, code in broken().values():
        text = base64.b64encode(data).decode()
        found, body = asked(captioner, {"images": [text, PNG_TEXT]})
        assert found == 200
        assert body["results"][0]["error"]["status"] == status
        assert body["results"][0]["error"]["code"] == code
        assert body["results"][1]["caption"]


def test_where_all_fail_the_request_does(captioner: CaptionHandler):  # noqa: F811
    status, body = asked(captioner, {"images": [DAMAGED, EMPTY]})
    assert status == 400
    assert body["error"]["message"].startswith("picture [0]: ")
    assert [each["error"]["code"] for each in body["results"]] == ["image_undecodable", "empty"]
    assert (body["succeeded"], body["failed"]) == (0, 2)
    status, body = asked(captioner, {"instances": [{"data": DAMAGED}]})
    assert (status, body["error"]["code"]) == (400, "image_undecodable")


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ({"images": []}, "no_image"),
        ({"images": PNG_TEXT}, "no_image"),
        ({"images": [{}]}, "no_image"),
        ({"images": [PNG_TEXT], "image": PNG_TEXT}, "bad_request"),
        ({"images": [PNG_TEXT], "explain": True}, "no_explanations"),
        ({"images": [{"image": PNG_TEXT, "beams": 1}]}, "unknown_option"),
        ({"images": [{"image": PNG_TEXT, "num_beams": 99}]}, "bad_option"),
        ({"image": PNG_TEXT, "features": "csv"}, "bad_option"),
        ({"image": PNG_TEXT, "features": 1}, "bad_option"),
        ({"image": PNG_TEXT, "unit_features": True}, "bad_option"),
        ({"image": PNG_TEXT, "timeout_ms": 0}, "bad_option"),
        ({"image": PNG_TEXT, "timeout_ms": "soon"}, "bad_option"),
        ({"image": PNG_TEXT, "timeout_ms": True}, "bad_option"),
        ({"image": PNG_TEXT, "timeout_ms": 1e9}, "bad_option"),
    ],
)
def test_requests_that_make_no_sense_are_refused(
    captioner: CaptionHandler,  # noqa: F811
    document: dict[str, Any],
    code: str,
):
    status, body = asked(captioner, document)
    assert status in (400, 422)
    assert body["error"]["code"] == code


def test_kserve_replies_hold_an_error_for_a_picture(captioner: CaptionHandler):  # noqa: F811
    _, v1 = asked(captioner, {"instances": [{"data": DAMAGED}, PNG_TEXT]})
    assert v1["predictions"][0]["error"]["code"] == "image_undecodable"
    tensor = {"name": "image", "shape": [3], "datatype": "BYTES", "data": [PNG_TEXT, DAMAGED, 7]}
    options = {"num_captions": 2, "features": True}
    status, v2 = asked(captioner, {"inputs": [tensor], "parameters": options})
    assert status == 200
    outputs = {each["name"]: each for each in v2["outputs"]}
    assert outputs["caption"]["shape"] == [3, 2]
    assert outputs["caption"]["data"][2:] == [""] * 4
    assert outputs["finish_reason"]["data"][2:] == ["error"] * 4
    errors = outputs["error"]["data"]
    assert errors[0] == ""
    assert [json.loads(each)["code"] for each in errors[1:]] == ["image_undecodable", "bad_base64"]
    assert outputs["features"]["shape"][0] == 3
    assert np.shape(outputs["features"]["data"]) == tuple(outputs["features"]["shape"])


def test_kserve_tensors_ask_for_as_many_captions_each(captioner: CaptionHandler):  # noqa: F811
    def tensors(*counts: int) -> dict[str, Any]:
        own = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [PNG_TEXT]}
        return {"inputs": [{**own, "parameters": {"num_captions": each}} for each in counts]}

    status, body = asked(captioner, tensors(1, 2))  # a tensor of captions is rectangular
    assert status == 422
    assert "num_captions" in body["error"]
    status, body = asked(captioner, tensors(2, 2))
    assert status == 200
    for output in body["outputs"]:
        assert len(output["data"]) == 4


@pytest.mark.parametrize("unit", [False, True])
def test_features_are_those_of_the_encoder(captioner: CaptionHandler, unit: bool):  # noqa: F811
    own = captioner.artifact
    opened = open_image(sound()["png"], 10**6, own.preprocessing.size)
    expected = own.encode(to_pixels(opened.decode(), own.preprocessing)[None])[0]
    if unit:
        expected = torch.nn.functional.normalize(expected, dim=-1)
    asks = {"image": PNG_TEXT, "unit_features": unit}
    _, listed = asked(captioner, {**asks, "features": True})
    _, packed = asked(captioner, {**asks, "options": {"features": "base64"}})
    found = listed["features"]
    assert found["shape"] == list(expected.shape)
    torch.testing.assert_close(torch.tensor(found["data"]), expected, rtol=1e-5, atol=1e-6)
    assert packed["features"]["shape"] == found["shape"]
    data = np.frombuffer(base64.b64decode(packed["features"]["data"]), "<f4")
    assert data.reshape(found["shape"]).tolist() == found["data"]
    assert "features" not in asked(captioner, {"image": PNG_TEXT})[1]


def test_a_form_may_ask_for_features(captioner: CaptionHandler):  # noqa: F811
    row = {"data": sound()["png"], "features": b"base64", "timeout_ms": b"60000"}
    ((status, body, _),) = answer(captioner, [row])
    assert status == 200
    assert isinstance(body["features"]["data"], str)


def test_a_request_whose_time_is_over_costs_no_time_of_the_model(
    captioner: CaptionHandler,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
):
    ticks = itertools.count(100.0, 0.003)  # a clock that moves on by 3 ms at each look
    monkeypatch.setattr("handler.batch_captioner.time.monotonic", lambda: next(ticks))
    encoded: list[int] = []
    encode = captioner.artifact.encode
    monkeypatch.setattr(
        captioner.artifact, "encode", lambda pixels: encoded.append(len(pixels)) or encode(pixels)
    )
    late, patient = {"image": PNG_TEXT, "timeout_ms": 5}, {"image": PNG_TEXT, "timeout_ms": 5000}
    replies = answer(captioner, [{"body": json.dumps(each).encode()} for each in (late, patient)])
    assert [status for status, _, _ in replies] == [504, 200]
    assert encoded == [1]
