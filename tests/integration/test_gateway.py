"""The gateway's own interface, in front of a real TorchServe."""

from __future__ import annotations

import base64
import json
import logging
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from client import CaptionClient
from deploy.torchserve import TorchServe
from gateway.access.keys import add_key
from gateway.settings import Settings
from tests.integration.gateways import free_port, running, settings_for
from tests.integration.scrape import value_of
from tests.pictures import broken, sound

PICTURES = sound()
BROKEN = broken()
PNG, JPEG = PICTURES["png"], PICTURES["jpeg"]
TEXT = base64.b64encode(PNG).decode()
BAD = b"this is no picture"


@pytest.fixture(scope="module")
def expected(server: TorchServe) -> dict[str, Any]:
    """What TorchServe answers to the picture, without its model."""
    with CaptionClient(server.rest) as client:
        found = client.caption(PNG).to_dict()
    del found["model"]
    return found


def error_of(reply: httpx.Response) -> tuple[int, str]:
    """Status and code of an error object, which repeats the status of the reply."""
    error = reply.json()["error"]
    assert error["status"] == reply.status_code
    assert error["message"]
    return error["status"], error["code"]


@pytest.mark.parametrize(
    "how",
    [
        {"content": PNG},
        {"content": PNG, "headers": {"Content-Type": "image/png"}},
        {"content": PNG, "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
        {"files": {"data": PNG}},
        {"files": {"anything": ("photo.png", PNG, "image/png")}},
        {"json": {"image": TEXT}},
        {"json": {"images": [f"data:image/png;base64,{TEXT}"]}},
        {"content": f'{{"image": "{TEXT}"}}'},
    ],
)
def test_however_a_picture_is_sent(gateway: str, expected: dict[str, Any], how: dict[str, Any]):
    reply = httpx.post(f"{gateway}/v1/captions", **how)
    assert reply.status_code == 200, reply.text
    body = reply.json()
    assert body["results"] == [expected]
    assert (body["succeeded"], body["failed"]) == (1, 0)
    assert body["model"] == {"name": "clipcap", "version": "1.0"}
    assert 0 < body["seconds"] < 60


@pytest.mark.parametrize(
    "how",
    [
        {"content": PNG, "params": {"num_captions": 3, "num_beams": 4}},
        {"files": {"data": PNG}, "data": {"num_captions": "3", "num_beams": "4"}},
        {"files": {"data": PNG}, "data": {"num_captions": "3"}, "params": {"num_beams": "4"}},
        {"json": {"image": TEXT, "options": {"num_captions": 3, "num_beams": 4}}},
        {"json": {"image": TEXT, "num_captions": 3, "num_beams": 4}},
    ],
)
def test_options_come_as_query_form_or_json(server: TorchServe, gateway: str, how: dict[str, Any]):
    reply = httpx.post(f"{gateway}/v1/captions", **how)
    with CaptionClient(server.rest) as client:
        expected = client.caption(PNG, num_captions=3, num_beams=4).to_dict()["captions"]
    assert reply.json()["results"][0]["captions"] == expected
    assert len(expected) == 3


def test_several_pictures_share_a_batch_and_fail_one_by_one(server: TorchServe, gateway: str):
    batches = value_of(server, "clipcap_decode_seconds_count")
    files = [("data", PNG), ("data", BAD), ("more", JPEG), ("data", b"")] + [("data", PNG)] * 8
    reply = httpx.post(f"{gateway}/v1/captions", files=files)
    assert reply.status_code == 200
    body = reply.json()
    errors = [each.get("error", {}).get("code") for each in body["results"]]
    assert errors == [None, "image_undecodable", None, "empty"] + [None] * 8
    assert (body["succeeded"], body["failed"]) == (10, 2)
    assert body["results"][0] == body["results"][-1]
    assert value_of(server, "clipcap_decode_seconds_count") - batches < 11


def test_if_all_pictures_fail_the_first_error_is_the_reply_s(gateway: str):
    images = [base64.b64encode(each).decode() for each in (BAD, b"")]
    reply = httpx.post(f"{gateway}/v1/captions", json={"images": images})
    assert error_of(reply) == (400, "image_undecodable")
    body = reply.json()
    assert [each["error"]["code"] for each in body["results"]] == ["image_undecodable", "empty"]
    assert (body["succeeded"], body["failed"]) == (0, 2)


@pytest.mark.parametrize("name", BROKEN)
def test_what_the_handler_refuses_has_its_status_and_code(gateway: str, name: str):
    data, status, code = BROKEN[name]
    reply = httpx.post(f"{gateway}/v1/captions", files={"data": data})
    assert error_of(reply) == (status, code)


@pytest.mark.parametrize(
    ("how", "status", "code"),
    [
        ({}, 400, "no_image"),
        ({"content": "{"}, 400, "bad_json"),
        ({"content": "[1]", "headers": {"Content-Type": "application/json"}}, 400, "bad_json"),
        ({"content": "{" * 5000}, 400, "bad_json"),
        ({"json": {}}, 400, "no_image"),
        ({"json": {"images": []}}, 400, "no_image"),
        ({"json": {"images": TEXT}}, 400, "bad_json"),
        ({"json": {"image": TEXT, "images": [TEXT]}}, 400, "no_image"),
        ({"json": {"image": 5}}, 400, "bad_base64"),
        ({"json": {"image": "*"}}, 400, "bad_base64"),
        ({"json": {"image": "data:,x"}}, 400, "bad_base64"),
        ({"json": {"image": "http://127.0.0.1/photo.jpg"}}, 400, "no_urls"),
        ({"json": {"image": TEXT, "options": 5}}, 400, "bad_json"),
        ({"json": {"images": [TEXT] * 17}}, 413, "too_many_images"),
        ({"content": PNG, "params": {"beams": 5}}, 400, "unknown_option"),
        ({"content": PNG, "params": {"data": 5}}, 400, "unknown_option"),
        ({"content": PNG, "params": {"num_beams": "x"}}, 422, "bad_option"),
        ({"content": PNG, "params": {"num_beams": 1000}}, 422, "bad_option"),
        ({"files": {"data": PNG}, "data": {"num_beams": "1" * 9000}}, 422, "bad_option"),
        ({"content": PNG, "params": {"num_beams": "é&num_beams=1"}}, 422, "bad_option"),
        ({"json": {"image": TEXT, "num_beams": None}}, 422, "bad_option"),
        ({"json": {"image": TEXT, "num_beams": [1]}}, 422, "bad_option"),
        ({"content": PNG, "params": [("num_beams", 1), ("num_beams", 2)]}, 400, "bad_request"),
        ({"content": PNG, "headers": {"Content-Encoding": "gzip"}}, 415, "encoding"),
        (
            {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}},
            400,
            "bad_request",
        ),
        (
            {"content": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=y"}},
            400,
            "bad_request",
        ),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(
    gateway: str, how: dict[str, Any], status: int, code: str
):
    assert error_of(httpx.post(f"{gateway}/v1/captions", **how)) == (status, code)


def test_an_unknown_path_and_a_wrong_method_get_the_error_object(gateway: str):
    assert error_of(httpx.get(f"{gateway}/photo.jpg")) == (404, "not_found")
    reply = httpx.get(f"{gateway}/v1/captions")
    assert error_of(reply) == (405, "method_not_allowed")
    assert reply.headers["Allow"] == "POST"


def test_a_body_over_the_limit_is_refused_while_it_is_read(server: TorchServe):
    def endless() -> Iterator[bytes]:
        for _ in range(1000):
            yield bytes(10_000)

    with running(settings_for(server, max_body_bytes=50_000, max_picture_bytes=20_000)) as gateway:
        url = f"{gateway}/v1/captions"
        assert error_of(httpx.post(url, content=bytes(50_001))) == (413, "request_too_large")
        assert error_of(httpx.post(url, content=bytes(20_001))) == (413, "request_too_large")
        with httpx.Client() as client:
            request = client.build_request("POST", url, content=endless())
            assert "Content-Length" not in request.headers
            try:
                reply = client.send(request)
            except httpx.WriteError:  # it was refused before it was whole
                pass
            else:
                assert error_of(reply) == (413, "request_too_large")
        assert httpx.post(url, content=PNG).status_code == 200


def test_the_largest_picture_passes_torchserve(gateway: str):
    limit = Settings().max_picture_bytes
    reply = httpx.post(f"{gateway}/v1/captions", content=PNG + bytes(limit - len(PNG)), timeout=60)
    assert reply.status_code == 200
    reply = httpx.post(f"{gateway}/v1/captions", content=bytes(limit + 1), timeout=60)
    assert error_of(reply) == (413, "request_too_large")


def test_a_client_that_sends_too_slowly_is_cut_off(server: TorchServe):
    settings = settings_for(server, body_seconds=0.3)
    with running(settings), socket.create_connection(("127.0.0.1", settings.port)) as slow:
        slow.sendall(b"POST /v1/captions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nx")
        slow.settimeout(5)
        reply = b""
        while part := slow.recv(10_000):  # until the gateway closes the connection
            reply += part
    assert reply.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"too_slow"' in reply


@pytest.mark.parametrize(
    "kind", ["image/png", "application/json", "multipart/form-data; boundary=x"]
)
@pytest.mark.parametrize("path", ["/v1/captions", "/api/chat"])
def test_a_client_that_leaves_early_puts_no_traceback_into_the_log(
    server: TorchServe, caplog: pytest.LogCaptureFixture, path: str, kind: str
):
    settings = settings_for(server)
    with caplog.at_level(logging.INFO), running(settings) as gateway:
        with socket.create_connection(("127.0.0.1", settings.port)) as client:
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n"
            client.sendall(f"{head}Content-Length: 100\r\n\r\n--x".encode())
            time.sleep(0.3)
        for _ in range(100):
            if f"POST {path} 400" in caplog.text:
                break
            time.sleep(0.05)
        assert httpx.get(f"{gateway}/healthz").status_code == 200
    assert f"POST {path} 400" in caplog.text
    assert not [record for record in caplog.records if record.exc_info]


def test_a_request_id_goes_in_and_out(gateway: str):
    given = httpx.get(f"{gateway}/healthz", headers={"X-Request-Id": "abc-1"})
    assert given.headers["X-Request-Id"] == "abc-1"
    made = [httpx.get(f"{gateway}/healthz").headers["X-Request-Id"] for _ in range(2)]
    assert len(set(made)) == 2
    bad = httpx.get(f"{gateway}/healthz", headers={"X-Request-Id": "a b\tc"})
    assert bad.headers["X-Request-Id"] != "a b\tc"
    assert "X-Request-Id" in httpx.get(f"{gateway}/nothing").headers


def test_a_file_that_is_a_request_in_json_is_no_picture(gateway: str):
    """TorchServe's handler would read it as one, and answer in another form."""
    text = base64.b64encode(PNG).decode()
    for document in ({"instances": [text]}, {"image": text}, [1]):
        file = b"  " + json.dumps(document).encode()
        replies = [
            httpx.post(f"{gateway}/v1/captions", files={"data": file}),
            httpx.post(
                f"{gateway}/v1/models/clipcap:predict",
                json={"instances": [{"data": base64.b64encode(file).decode()}]},
            ),
        ]
        assert [error_of(each) for each in replies] == [(400, "image_undecodable")] * 2


def test_beyond_the_limit_requests_are_refused_at_once(server: TorchServe):
    slow = {"num_beams": 8, "num_captions": 8}
    with running(settings_for(server, max_in_flight=2)) as gateway, ThreadPoolExecutor(12) as pool:

        def ask(_: int) -> httpx.Response:
            return httpx.post(f"{gateway}/v1/captions", content=PNG, params=slow, timeout=60)

        replies = list(pool.map(ask, range(40)))
        refused = [reply for reply in replies if reply.status_code != 200]
        assert 0 < len(refused) < len(replies)
        for reply in refused:
            assert error_of(reply) == (503, "overloaded")
            assert int(reply.headers["Retry-After"]) >= 1
            assert reply.json()["error"]["retry_after_seconds"] >= 1
        assert ask(0).status_code == 200
        text = httpx.get(f"{gateway}/metrics").text
    assert "gateway_pictures_in_flight 0.0" in text


def test_without_torchserve_a_request_waits_some_seconds_and_is_told():
    port = free_port()
    nowhere = f"http://127.0.0.1:{port}"
    settings = Settings(
        port=free_port(),
        inference=nowhere,
        management=nowhere,
        metrics=nowhere,
        restart_seconds=0.5,
    )
    with running(settings) as gateway:
        reply = httpx.post(f"{gateway}/v1/captions", content=PNG)
        assert error_of(reply) == (503, "not_ready")
        assert int(reply.headers["Retry-After"]) >= 1
        assert reply.elapsed.total_seconds() >= 0.5
        assert error_of(httpx.get(f"{gateway}/readyz")) == (503, "not_ready")
        assert httpx.get(f"{gateway}/healthz").json() == {"status": "alive"}
        assert "gateway_torchserve_up 0.0" in httpx.get(f"{gateway}/metrics").text


def test_a_torchserve_that_never_answers_holds_no_request_beyond_its_deadline(server: TorchServe):
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor(4) as pool:
        management = f"http://127.0.0.1:{silent.getsockname()[1]}"
        settings = settings_for(server, management=management, deadline_seconds=1.0)
        with running(settings) as gateway:
            url = f"{gateway}/v1/captions"
            for reply in pool.map(lambda _: httpx.post(url, content=PNG, timeout=30), range(4)):
                assert error_of(reply) == (503, "not_ready")
                assert 1 <= reply.elapsed.total_seconds() < 3


def test_ready_means_that_a_sample_is_captioned(server: TorchServe):
    with running(settings_for(server)) as gateway:
        before = value_of(server, "clipcap_captions_total")
        with ThreadPoolExecutor(8) as pool:
            for reply in pool.map(lambda _: httpx.get(f"{gateway}/readyz", timeout=30), range(8)):
                assert reply.json() == {"status": "ready"}
        assert value_of(server, "clipcap_captions_total") == before + 1
        assert httpx.get(f"{gateway}/readyz").status_code == 200  # the caption is fresh enough
        assert value_of(server, "clipcap_captions_total") == before + 1


def test_one_scrape_gives_the_metrics_of_both(gateway: str):
    httpx.post(f"{gateway}/v1/captions", content=PNG)
    httpx.get(f"{gateway}/made/up")
    reply = httpx.get(f"{gateway}/metrics")
    assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    samples = {
        (sample.name, sample.labels.get("route")): sample.value
        for family in text_string_to_metric_families(reply.text)
        for sample in family.samples
    }
    assert samples["gateway_requests_total", "/v1/captions"] >= 1
    assert samples["gateway_requests_total", "other"] >= 1
    assert ("gateway_requests_total", "/made/up") not in samples
    assert samples["clipcap_captions_total", None] >= 1
    assert samples["gateway_torchserve_up", None] == 1
    assert samples["gateway_torchserve_workers_ready", None] == 1
    assert samples["gateway_torchserve_queue", None] == 0


def test_the_description_is_the_captioner_s_own(server: TorchServe, gateway: str):
    body = httpx.get(f"{gateway}/v1/description").json()
    own = httpx.get(f"{server.management}/models/clipcap", params={"customized": "true"}).json()
    assert body == own[0]["customizedMetadata"]


def test_every_reply_has_the_security_headers(gateway: str):
    for path in ("/", "/healthz", "/nothing", "/v1/captions"):
        headers = httpx.get(f"{gateway}{path}").headers
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'self'; img-src 'self' data: blob:;")
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_keys_open_everything_but_the_state(server: TorchServe, tmp_path: Path):
    file = tmp_path / "keys"
    key, other = add_key(file, "page"), add_key(file, "robot")
    with running(settings_for(server, keys=file)) as gateway:
        url = f"{gateway}/v1/description"
        for headers in (
            {"Authorization": f"Bearer {key}"},
            {"authorization": f"bearer {other}"},
            {"X-API-Key": key},
        ):
            assert httpx.get(url, headers=headers).status_code == 200
        for headers in (
            {},
            {"Authorization": "Bearer nothing"},
            {"Authorization": f"Basic {key}"},
            {"Authorization": "Bearer"},
            {"X-API-Key": ""},
        ):
            reply = httpx.get(url, headers=headers)
            assert error_of(reply) == (401, "key_needed")
            assert reply.headers["WWW-Authenticate"] == "Bearer"
        assert error_of(httpx.get(f"{gateway}/metrics")) == (401, "key_needed")
        assert error_of(httpx.post(f"{gateway}/v1/captions", content=PNG))[0] == 401
        for path in ("/", "/healthz", "/readyz"):
            assert httpx.get(f"{gateway}{path}", timeout=30).status_code == 200


def test_pages_of_listed_origins_may_call(server: TorchServe, tmp_path: Path):
    add_key(tmp_path / "keys", "page")
    settings = settings_for(server, cors_origins=("https://example.org",), keys=tmp_path / "keys")
    ask = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    with running(settings) as gateway:
        url = f"{gateway}/v1/captions"
        listed = httpx.options(url, headers={"Origin": "https://example.org", **ask})
        assert listed.status_code == 200
        assert listed.headers["Access-Control-Allow-Origin"] == "https://example.org"
        other = httpx.options(url, headers={"Origin": "https://example.com", **ask})
        assert "Access-Control-Allow-Origin" not in other.headers
        # A page must be able to read that it needs a key.
        refused = httpx.post(url, content=PNG, headers={"Origin": "https://example.org"})
        assert refused.status_code == 401
        assert refused.headers["Access-Control-Allow-Origin"] == "https://example.org"


def test_the_log_holds_no_picture_key_or_header(
    server: TorchServe, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    key = add_key(tmp_path / "keys", "page")
    with (
        caplog.at_level(logging.INFO),
        running(settings_for(server, keys=tmp_path / "keys")) as gateway,
    ):
        headers = {"Authorization": f"Bearer {key}", "X-Secret": "hush", "X-Request-Id": "id-5"}
        images = [TEXT, base64.b64encode(BAD).decode()]
        for json in ({"images": images}, {"image": 5}):
            httpx.post(
                f"{gateway}/v1/captions", json=json, headers=headers, params={"key": "query"}
            )
        httpx.post(f"{gateway}/v1/captions", json={"image": TEXT}, headers=headers)
    ours = [record.getMessage() for record in caplog.records if "gateway" in record.name]
    assert any("id-5 POST /v1/captions 200" in line for line in ours)
    whole = "\n".join(ours)
    for secret in (key, "hush", TEXT[:20], "query", "Bearer"):
        assert secret not in whole
