"""Everything people send, over REST and gRPC, alone and in one batch with good pictures."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from client import CaptionClient, CaptionError, CaptionResult
from deploy.torchserve import TorchServe
from tests.pictures import broken, encoded, picture, sound

BROKEN = broken()
SOUND = sound()
OPTIONS: dict[str, tuple[dict[str, str], int, str]] = {
    "unknown option": ({"beams": "3"}, 400, "unknown_option"),
    "out of range": ({"num_beams": "99"}, 422, "bad_option"),
    "not a number": ({"max_tokens": "many"}, 422, "bad_option"),
    "more captions than beams": ({"num_beams": "1", "num_captions": "3"}, 422, "bad_option"),
}
JSON: dict[str, tuple[bytes, int, str]] = {
    "broken json": (b'{"image": ', 400, "bad_json"),
    "a json list": (b"[1, 2]", 400, "bad_json"),
    "json without a picture": (b'{"options": {}}', 400, "no_image"),
    "broken base64": (b'{"image": "%%%%"}', 400, "bad_base64"),
    "base64 of no picture": (b'{"image": "aGVsbG8="}', 400, "image_undecodable"),
    "nested without end": (b"[" * 50_000, 400, "bad_json"),
    "an option of lists in lists": (
        b'{"image": "%b", "num_beams": %b}'
        % (base64.b64encode(SOUND["png"]), b"[" * 500 + b"]" * 500),
        422,
        "bad_option",
    ),
    "two pictures under one name": (b'{"image": "aGVsbG8=", "image": ""}', 400, "bad_request"),
    "unknown option in json": (b'{"image": "", "beams": 1}', 400, "unknown_option"),
    "v1 without pictures": (b'{"instances": []}', 400, "no_image"),
    "v2 of numbers": (
        b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]}',
        400,
        "bad_request",
    ),
    "v2 of a million dimensions": (
        b'{"inputs": [{"datatype": "BYTES", "shape": [9%b], "data": []}]}' % (b",9" * 1_000_000),
        400,
        "bad_request",
    ),
}


@pytest.fixture(scope="module", params=["rest", "grpc", "gateway"])
def captioner(
    request: pytest.FixtureRequest, server: TorchServe, gateway: str
) -> Iterator[CaptionClient]:
    address = {"rest": server.rest, "grpc": server.grpc, "gateway": gateway}[request.param]
    with CaptionClient(address, timeout=30, retries=0) as client:
        yield client


def refusal(client: CaptionClient, data: bytes, **options: str) -> tuple[int, str]:
    with pytest.raises(CaptionError) as caught:
        client.caption(data, **options)
    assert caught.value.message
    return caught.value.status, caught.value.code


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_picture_is_captioned(captioner: CaptionClient, name: str):
    result = captioner.caption(SOUND[name])
    assert 0 < result.confidence <= 1
    assert result.captions[0].tokens > 0


def test_a_picture_turned_by_exif_is_captioned_the_right_way_up(captioner: CaptionClient):
    upright = captioner.caption(SOUND["png"])
    assert captioner.caption(SOUND["rotated by exif"]).captions == upright.captions
    on_its_side = encoded(picture().rotate(90, expand=True), "PNG")
    assert captioner.caption(on_its_side).captions[0].log_prob != upright.captions[0].log_prob


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_picture_is_refused(captioner: CaptionClient, name: str):
    data, status, code = BROKEN[name]
    assert refusal(captioner, data) == (status, code)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_wrong_option_is_refused(captioner: CaptionClient, name: str):
    options, status, code = OPTIONS[name]
    assert refusal(captioner, SOUND["png"], **options) == (status, code)


@pytest.mark.parametrize("name", JSON)
def test_a_wrong_document_is_refused(captioner: CaptionClient, name: str):
    data, status, code = JSON[name]
    assert refusal(captioner, data) == (status, code)


@pytest.mark.parametrize("through", ["rest", "gateway"])
@pytest.mark.parametrize("name", JSON)
def test_a_wrong_document_posted_as_json_is_refused(
    server: TorchServe, gateway: str, name: str, through: str
):
    data, status, code = JSON[name]
    reply = httpx.post(
        f"{gateway if through == 'gateway' else server.rest}/predictions/clipcap",
        content=data,
        headers={"Content-Type": "application/json"},
    )
    error = reply.json()["error"]
    if b'"inputs"' in data:  # KServe v2
        assert isinstance(error, str)
        error = reply.json()["detail"]
    assert (reply.status_code, error["code"]) == (status, code)
    assert error["status"] == status
    assert reply.headers["content-type"] == "application/json"


def test_the_refusal_of_one_of_several_pictures_stands_in_its_place(server: TorchServe):
    good, bad = (base64.b64encode(data).decode() for data in (SOUND["png"], b"no picture"))
    document = {"instances": [{"data": good}, {"data": bad}]}
    reply = httpx.post(f"{server.rest}/v1/models/clipcap:predict", json=document)
    assert reply.status_code == 200
    captioned, refused = reply.json()["predictions"]
    assert captioned["caption"]
    assert refused["error"]["code"] == "image_undecodable"
    document = {"instances": [{"data": bad}, {"data": bad}]}
    reply = httpx.post(f"{server.rest}/v1/models/clipcap:predict", json=document)
    assert reply.status_code == 400
    assert reply.json()["error"]["message"].startswith("picture [0]:")


def test_the_gateway_refuses_too_large_a_picture_with_a_body(gateway: str):
    huge = b"\xff" * 25_000_000
    reply = httpx.post(f"{gateway}/predictions/clipcap", content=huge)
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "request_too_large")
    with CaptionClient(gateway, retries=0) as client:
        assert refusal(client, huge) == (413, "request_too_large")


def test_too_large_a_request_is_cut_off(server: TorchServe):
    huge = b"\xff" * 25_000_000
    reply = httpx.post(f"{server.rest}/predictions/clipcap", content=huge)
    assert (reply.status_code, reply.content) == (413, b"")
    with CaptionClient(server.rest, retries=0) as rest:
        assert refusal(rest, huge)[1] in ("request_too_large", "connection_lost")
    with CaptionClient(server.grpc, retries=0) as rpc:
        assert refusal(rpc, huge) == (413, "request_too_large")


def test_bad_requests_leave_the_good_ones_of_their_batch_alone(
    server: TorchServe, captioner: CaptionClient
):
    alone = captioner.caption(SOUND["png"])
    requests: list[tuple[bytes, dict[str, str], int, str]] = []
    for data, status, code in [*BROKEN.values(), *JSON.values()]:
        requests.append((data, {}, status, code))
    for options, status, code in OPTIONS.values():
        requests.append((SOUND["png"], options, status, code))
    good: tuple[bytes, dict[str, str], int, str] = (SOUND["png"], {}, 200, "")
    requests = [each for bad in requests for each in (bad, good)]

    def send(request: tuple[bytes, dict[str, str], int, str]) -> CaptionResult | CaptionError:
        try:
            return captioner.caption(request[0], **request[1])
        except CaptionError as error:
            return error

    batches = batches_so_far(server)
    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(send, requests))
    for (_, _, status, code), outcome in zip(requests, outcomes, strict=True):
        if status == 200:
            assert isinstance(outcome, CaptionResult), outcome
            assert outcome.caption == alone.caption
            log_prob = outcome.captions[0].log_prob
            assert log_prob == pytest.approx(alone.captions[0].log_prob, abs=1e-3)
        else:
            assert isinstance(outcome, CaptionError)
            assert (outcome.status, outcome.code) == (status, code)
    assert batches_so_far(server) - batches < len(requests)  # they did share batches


def batches_so_far(server: TorchServe) -> float:
    from tests.integration.scrape import value_of

    return value_of(server, "clipcap_decode_seconds_count")
