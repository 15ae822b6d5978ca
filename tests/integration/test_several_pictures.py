"""Several pictures, features and time limits over REST, gRPC and the gateway: the same replies."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import numpy as np
import pytest

from client import CaptionClient, CaptionError
from deploy.torchserve import TorchServe
from tests.pictures import sound

PICTURES = sound()
PNG, JPEG = PICTURES["png"], PICTURES["jpeg"]
TEXT, OTHER = (base64.b64encode(data).decode() for data in (PNG, JPEG))
BAD = base64.b64encode(b"no picture").decode()


def asked(address: str, document: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    reply = httpx.post(f"{address}/predictions/clipcap", json=document, timeout=60)
    return reply.status_code, reply.json()


def test_each_of_several_pictures_has_its_result(address: str):
    status, body = asked(address, {"images": [TEXT, BAD, OTHER, 5], "num_captions": 2})
    assert status == 200
    assert (body["succeeded"], body["failed"]) == (2, 2)
    assert [len(each.get("captions", ())) for each in body["results"]] == [2, 0, 2, 0]
    codes = [each["error"]["code"] for each in body["results"] if "error" in each]
    assert codes == ["image_undecodable", "bad_base64"]
    alone = asked(address, {"image": OTHER, "num_captions": 2})[1]
    assert body["results"][2]["caption"] == alone["caption"]
    assert body["model"] == alone["model"]


def test_where_all_fail_the_status_says_so(address: str):
    status, body = asked(address, {"images": [BAD, ""]})
    assert status == 400
    assert body["error"]["code"] == "image_undecodable"
    assert len(body["results"]) == 2


def test_kserve_has_a_result_for_each_picture(address: str):
    _, v1 = asked(address, {"instances": [{"data": BAD}, {"data": TEXT}]})
    assert v1["predictions"][0]["error"]["status"] == 400
    assert v1["predictions"][1]["caption"]
    tensor = {"name": "image", "shape": [2], "datatype": "BYTES", "data": [TEXT, BAD]}
    status, v2 = asked(address, {"inputs": [tensor], "parameters": {"features": True}})
    assert status == 200
    outputs = {each["name"]: each for each in v2["outputs"]}
    assert outputs["caption"]["data"][1] == ""
    assert json.loads(outputs["error"]["data"][1])["code"] == "image_undecodable"
    assert outputs["features"]["shape"][0] == 2


def test_features_are_the_same_everywhere(address: str, server: TorchServe):
    own = asked(server.rest, {"image": TEXT, "features": True})[1]["features"]
    found = asked(address, {"image": TEXT, "features": "base64"})[1]["features"]
    assert found["shape"] == own["shape"]
    packed = np.frombuffer(base64.b64decode(found["data"]), "<f4").reshape(found["shape"])
    np.testing.assert_allclose(packed, own["data"], rtol=1e-5, atol=1e-6)
    unit = asked(address, {"image": TEXT, "features": True, "unit_features": True})[1]["features"]
    norms = np.linalg.norm(np.array(unit["data"]), axis=-1)
    np.testing.assert_allclose(norms, 1.0, rtol=1e-5)


@pytest.mark.parametrize("scheme", ["rest", "grpc", "gateway"])
def test_clients_get_features(server: TorchServe, gateway: str, scheme: str):
    where = {"rest": server.rest, "grpc": server.grpc, "gateway": gateway}[scheme]
    with CaptionClient(where) as client:
        result = client.caption(PNG, features="base64", timeout_ms=60_000)
        assert result.features is not None
        assert isinstance(result.features["data"], str)
        with pytest.raises(CaptionError) as caught:
            client.caption(PNG, features="csv")
    assert (caught.value.status, caught.value.code) == (422, "bad_option")


def test_a_form_of_several_files_goes_through_the_gateway(gateway: str):
    files = [("data", ("a.png", PNG)), ("data", ("b.jpg", JPEG)), ("data", ("c", b"nothing"))]
    reply = httpx.post(f"{gateway}/predictions/clipcap", files=files, data={"num_beams": "2"})
    assert reply.status_code == 200
    body = reply.json()
    assert (body["succeeded"], body["failed"]) == (2, 1)
    assert body["results"][2]["error"]["code"] == "image_undecodable"


def test_torchserve_alone_says_that_it_dropped_one(server: TorchServe):
    files = [("data", ("a.png", PNG + bytes(5000))), ("data", ("b.jpg", JPEG))]
    reply = httpx.post(f"{server.rest}/predictions/clipcap", files=files)
    assert reply.status_code == 400
    assert '{"images"' in reply.json()["error"]["message"]


def test_a_time_limit_is_the_request_s_own(address: str):
    # Less time than it takes to read the request and decode the picture.
    status, body = asked(address, {"image": TEXT, "timeout_ms": 1, "num_beams": 8})
    assert (status, body["error"]["code"]) == (504, "deadline")
    status, body = asked(address, {"image": TEXT, "timeout_ms": "soon"})
    assert (status, body["error"]["code"]) == (422, "bad_option")
    assert asked(address, {"image": TEXT, "timeout_ms": 60000})[0] == 200


def test_v1_captions_gives_features(gateway: str):
    reply = httpx.post(
        f"{gateway}/v1/captions?features=true&timeout_ms=30000", files=[("data", ("a.png", PNG))]
    )
    [result] = reply.json()["results"]
    assert np.shape(result["features"]["data"]) == tuple(result["features"]["shape"])


def test_how_unusual_a_picture_is_the_same_everywhere(
    address: str, server: TorchServe, gateway: str
):
    _, own = asked(address, {"image": TEXT, "ood": True})
    assert own["ood"]["score"] > 0
    assert 0 < own["ood"]["p_value"] <= 1
    for where in (server.rest, server.grpc, gateway):
        with CaptionClient(where) as client:
            result = client.caption(PNG, ood="true")
            assert client.caption(PNG).ood is None
        assert result.ood is not None
        assert result.to_dict()["ood"] == own["ood"]
    tensor = {"name": "image", "shape": [2], "datatype": "BYTES", "data": [TEXT, BAD]}
    _, v2 = asked(address, {"inputs": [tensor], "parameters": {"ood": True}})
    outputs = {each["name"]: each["data"] for each in v2["outputs"]}
    assert outputs["ood_score"] == [own["ood"]["score"], 0.0]
    assert outputs["ood_p_value"] == [own["ood"]["p_value"], 1.0]
    status, refused = asked(address, {"image": TEXT, "ood": "maybe"})
    assert (status, refused["error"]["code"]) == (422, "bad_option")
