"""Requests of HTTP as the handler's code gets them on Ray Serve; no Ray is started."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

pytest.importorskip("starlette", reason="the extra scale is not installed")

from starlette.requests import Request

from handler.requests.caption_request import RequestRefusal
from scale.serving.http_request import Kind, NotServed, Route, read_request, route_of

CAPTION = Route(Kind.CAPTION)


def received(sent: httpx.Request, route: Route = CAPTION, limit: int = 1 << 20) -> Any:
    """What is read of a request that httpx has written."""
    body = sent.read()
    parts = [body[:10], body[10:]]
    scope = {
        "type": "http",
        "method": sent.method,
        "path": sent.url.path,
        "query_string": sent.url.query,
        "headers": [(name.lower(), value) for name, value in sent.headers.raw],
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    return asyncio.run(read_request(Request(scope, receive), route, limit))


def post(**content: Any) -> httpx.Request:
    return httpx.Request("POST", "http://x/predictions/clipcap", **content)


def test_a_body_is_one_field_with_its_type():
    found = received(post(content=b"\xff\xd8 picture", headers={"Content-Type": "image/jpeg"}))
    assert found.fields == {"body": b"\xff\xd8 picture"}
    assert found.headers["body"] == {"content-type": "image/jpeg"}
    assert found.headers["content-type"] == "image/jpeg"


def test_a_form_has_its_fields_as_bytes():
    sent = post(files={"data": ("a.jpg", b"\xff\xd8\x00", "image/jpeg")}, data={"num_beams": "3"})
    found = received(sent)
    assert found.fields == {"data": b"\xff\xd8\x00", "num_beams": b"3"}
    assert found.headers["data"] == {"content-type": "image/jpeg"}


def test_a_large_field_without_a_file_name_is_read():
    boundary, text = "x", b"A" * 3_000_000
    head = b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\n'
    kind = f"multipart/form-data; boundary={boundary}"
    sent = post(content=head + text + b"\r\n--x--\r\n", headers={"Content-Type": kind})
    assert received(sent, limit=1 << 23).fields == {"image": text}


def test_an_encoded_form_keeps_bytes():
    found = received(post(data={"image": "aGk+/w==", "num_beams": "2"}))
    assert found.fields == {"image": b"aGk+/w==", "num_beams": b"2"}


def test_a_query_counts_where_torchserve_passes_it_on():
    sent = httpx.Request("POST", "http://x/models/clipcap/invoke?num_beams=2", content=b"abc")
    assert received(sent, route_of("POST", sent.url.path, "clipcap")).fields == {
        "num_beams": "2",
        "body": b"abc",
    }
    sent = httpx.Request("POST", "http://x/predictions/clipcap?num_beams=2", content=b"abc")
    assert received(sent, route_of("POST", sent.url.path, "clipcap")).fields == {"body": b"abc"}


def test_an_explanation_is_marked_by_its_route():
    route = route_of("POST", "/explanations/clipcap", "clipcap")
    assert received(post(content=b"abc"), route).headers["explain"] == "True"


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_that_is_too_large_is_refused(declared: bool):
    def parts() -> Any:
        yield b"a" * 200

    sent = post(content=b"a" * 200 if declared else parts())
    with pytest.raises(NotServed) as caught:
        received(sent, limit=100)
    assert (caught.value.status, caught.value.code) == (413, "request_too_large")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"abc"),
        ("multipart/form-data; boundary=x", b"no boundary here"),
        (
            "multipart/form-data; boundary=x",
            b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--",
        ),
    ],
)
def test_a_damaged_form_is_the_clients_fault(kind: str, body: bytes):
    with pytest.raises(RequestRefusal, match="form cannot be read") as caught:
        received(post(content=body, headers={"Content-Type": kind}))
    assert caught.value.code == "bad_request"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/predictions/other", 404),
        ("GET", "/models/other", 404),
        ("GET", "/", 404),
        ("POST", "/predictions/clipcap/1.0/more", 404),
        ("DELETE", "/predictions/clipcap", 405),
        ("POST", "/models/clipcap", 405),
    ],
)
def test_what_is_not_served_has_a_reason(method: str, path: str, status: int):
    with pytest.raises(NotServed) as caught:
        route_of(method, path, "clipcap")
    assert caught.value.status == status
