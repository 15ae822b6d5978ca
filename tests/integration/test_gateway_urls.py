"""Pictures by URL, in every interface that takes them, in front of a real TorchServe."""

from __future__ import annotations

import base64
import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from deploy.torchserve import TorchServe
from gateway.settings import Settings
from tests.file_server import FileServer, file_server
from tests.integration.gateways import running, settings_for
from tests.pictures import sound

PICTURES = sound()
PNG, JPEG = PICTURES["png"], PICTURES["jpeg"]
TEXT = base64.b64encode(PNG).decode()
LIMIT = 100_000
#: An address that nobody may ask, whatever listens there.
PRIVATE = "http://127.0.0.2:80/a.png"


def settings(server: TorchServe, **changes: Any) -> Settings:
    given = {"fetch_urls": True, "fetch_allowed_networks": ("127.0.0.1/32",), **changes}
    return settings_for(server, max_picture_bytes=LIMIT, **given)


@pytest.fixture(scope="module")
def gateway(server: TorchServe) -> Iterator[str]:
    with running(settings(server)) as address:
        yield address


@pytest.fixture
def files() -> Iterator[FileServer]:
    with file_server() as state:
        state.files = {
            "/a.png": PNG,
            "/b.jpg": JPEG,
            "/page.html": b"<p>an inner page</p>",
            "/empty": b"",
            "/large": PNG + bytes(LIMIT),
        }
        state.redirects = {"/moved": "/a.png", "/inside": PRIVATE}
        yield state


@pytest.fixture(scope="module")
def expected(gateway: str) -> dict[str, Any]:
    """The captions of the picture when its bytes are sent."""
    found: dict[str, Any] = httpx.post(f"{gateway}/v1/captions", content=PNG).json()["results"][0]
    assert found["caption"]
    return found


def ask(address: str, body: dict[str, Any], url: str) -> httpx.Response:
    """The reply to a body, with this URL for each "URL" in it."""
    document = json.dumps(body).replace('"URL"', json.dumps(url))
    return httpx.post(address, content=document, headers={"Content-Type": "application/json"})


@pytest.mark.parametrize("member", ["url", "image", "urls", "images"])
@pytest.mark.parametrize("path", ["/a.png", "/moved"])
def test_our_own_interface(
    gateway: str, files: FileServer, expected: dict[str, Any], member: str, path: str
):
    url = files.address + path
    body = {member: [url, url] if member.endswith("s") else url, "options": {"num_captions": 1}}
    reply = httpx.post(f"{gateway}/v1/captions", json=body)
    assert reply.status_code == 200, reply.text
    assert reply.json()["results"] == [expected] * (1 + member.endswith("s"))


def test_openai(gateway: str, files: FileServer, expected: dict[str, Any]):
    images = [f"{files.address}/a.png", f"data:image/png;base64,{TEXT}"]
    content = [{"type": "image_url", "image_url": {"url": url}} for url in images]
    chat = {"model": "clipcap", "messages": [{"role": "user", "content": content}]}
    reply = httpx.post(f"{gateway}/v1/chat/completions", json=chat)
    found = reply.json()["choices"][0]["message"]["content"]
    assert found == f"{expected['caption']}\n{expected['caption']}"


def test_hugging_face(gateway: str, files: FileServer, expected: dict[str, Any]):
    reply = httpx.post(f"{gateway}/models/clipcap", json={"inputs": f"{files.address}/a.png"})
    assert reply.json() == [{"generated_text": expected["caption"]}]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/generate", {"model": "clipcap", "images": ["URL"]}),
        ("/api/chat", {"model": "clipcap", "messages": [{"role": "user", "images": ["URL"]}]}),
        ("/v1/models/clipcap:predict", {"instances": [{"data": "URL"}]}),
    ],
)
def test_interfaces_of_bytes_take_no_url(
    gateway: str, files: FileServer, path: str, body: dict[str, Any]
):
    reply = ask(gateway + path, body, f"{files.address}/a.png")
    assert reply.status_code == 400
    assert '"no_urls"' in reply.text
    assert not files.asked


def test_each_picture_has_its_own_error(
    gateway: str, files: FileServer, expected: dict[str, Any], caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    paths = ["/a.png", "/nothing", "/page.html", "/empty", "/large", "/inside", "/b.jpg?secret=5"]
    urls = [*(files.address + path for path in paths), PRIVATE, "ftp://127.0.0.1/a.png"]
    files.files["/b.jpg?secret=5"] = JPEG
    reply = httpx.post(f"{gateway}/v1/captions", json={"images": [TEXT, *urls[:8]]})
    assert reply.status_code == 200
    body = reply.json()
    assert (body["succeeded"], body["failed"]) == (3, 6)
    assert body["results"][0] == body["results"][1] == expected
    errors = [each["error"] for each in body["results"] if "error" in each]
    assert [(each["status"], each["code"]) for each in errors] == [
        (422, "fetch_failed"),
        (400, "image_undecodable"),
        (400, "empty"),
        (413, "request_too_large"),
        (422, "url_refused"),
        (422, "url_refused"),
    ]
    assert errors[4] == errors[5]
    assert "inner" not in json.dumps(errors)
    assert "127.0.0" not in json.dumps(errors)
    assert "secret" not in caplog.text
    metrics = httpx.get(f"{gateway}/metrics").text
    assert 'gateway_pictures_total{outcome="url_refused"} 2.0' in metrics
    reply = httpx.post(f"{gateway}/v1/captions", json={"urls": urls[7:]})
    assert reply.status_code == 422
    assert [each["error"]["code"] for each in reply.json()["results"]] == ["url_refused"] * 2


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"url": 5}, "bad_json"),
        ({"urls": "http://127.0.0.1/a.png"}, "bad_json"),
        ({"urls": [None]}, "bad_json"),
        ({"urls": []}, "no_image"),
        ({"url": "http://127.0.0.1/a.png", "image": TEXT}, "no_image"),
    ],
)
def test_a_wrong_body_is_told_what_is_wrong(gateway: str, body: dict[str, Any], code: str):
    reply = httpx.post(f"{gateway}/v1/captions", json=body)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, code)


def test_a_server_that_is_slow_is_the_url_s_error_and_not_a_504(
    server: TorchServe, files: FileServer
):
    files.pause = 3
    with running(settings(server, fetch_seconds=0.5, deadline_seconds=60)) as gateway:
        begin = time.monotonic()
        reply = httpx.post(f"{gateway}/v1/captions", json={"url": f"{files.address}/a.png"})
        assert time.monotonic() - begin < 3
    assert (reply.status_code, reply.json()["error"]["code"]) == (422, "fetch_failed")
    assert "within 0.5 s" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/captions", {"url": "URL"}),
        ("/v1/captions", {"images": [TEXT, "URL"]}),
        ("/models/clipcap", {"inputs": "URL"}),
    ],
)
def test_by_default_no_url_is_fetched_and_the_error_names_the_setting(
    server: TorchServe, files: FileServer, path: str, body: dict[str, Any]
):
    with running(settings(server, fetch_urls=False)) as gateway:
        reply = ask(gateway + path, body, f"{files.address}/a.png")
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (400, "no_urls")
    assert "GATEWAY_FETCH_URLS is false" in error["message"]
    assert not files.asked
