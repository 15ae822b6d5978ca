"""Requests in the forms of other servers' clients, as the gateway reads them."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest
from fastapi import Request
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import GatewayError
from gateway.pictures.reading import (
    file_or_url,
    is_hugging_face,
    parse_json,
    read_document,
    read_request,
)
from gateway.routes.kserve_tensors import InferRequest

PICTURE = b"\xff\xd8\xff\xe0 a picture!" + b"\xfb\xef\xbe" * 3
TEXT = base64.b64encode(PICTURE).decode()
URL = "https://example.org/photo.jpg"
DESCRIPTION = {"options": {"num_beams": {}, "max_tokens": {}, "num_captions": {}}}


def read(body: bytes, kind: str) -> tuple[list[Any], dict[str, str]]:
    """What `read_request` makes of a request with this body and content type."""
    parts = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        return parts.pop()

    scope = {"type": "http", "method": "POST", "query_string": b""}
    headers = [(b"content-type", kind.encode()), (b"content-length", b"%d" % len(body))]
    request = Request({**scope, "headers": headers}, receive)
    return asyncio.run(read_request(request, DESCRIPTION))


@pytest.mark.parametrize("value", [TEXT, TEXT.rstrip("="), {"b64": TEXT}, {"base64": TEXT}])
@pytest.mark.parametrize("name", ["image", "data", "image_bytes", "b64", "base64"])
def test_members_that_hold_a_picture(name: str, value: Any):
    unread = {"signature_name": "serving_default", "metadata": {"file": "a.jpg"}}
    for group in ("options", "parameters"):
        document = {name: value, **unread, group: {"num_beams": 2}}
        assert read_document(document) == ([PICTURE], {"num_beams": 2})


def test_hugging_face_s_document():
    words = {"max_new_tokens": 5, "num_return_sequences": 2, "do_sample": False, "top_k": 50}
    ours = {"max_tokens": 5, "num_captions": 2, "temperature": 0.0}
    document = {"inputs": TEXT, "parameters": {"generate_kwargs": words}}
    assert read_document(document) == ([PICTURE], ours)
    pictures, _ = read_document({"inputs": [TEXT, URL, "no base64!"]})
    assert pictures[:2] == [PICTURE, URL]
    assert isinstance(pictures[2], GatewayError)


def test_inputs_of_hugging_face_and_of_kserve_are_told_apart():
    assert is_hugging_face({"inputs": TEXT})
    assert is_hugging_face({"inputs": [TEXT]})
    for other in (None, 5, [], [{}], [TEXT, {}], {"image": TEXT}):
        assert not is_hugging_face({"inputs": other})


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"data=" + TEXT.encode(), "application/x-www-form-urlencoded"),
        (b"num_beams=2&image=" + TEXT.encode(), "application/x-www-form-urlencoded"),
        (TEXT.encode(), "application/x-www-form-urlencoded"),
        (TEXT.encode(), "text/plain"),
        (
            b'--x\r\nContent-Disposition: form-data; name="data"\r\n\r\n%b\r\n--x--\r\n'
            % TEXT.encode(),
            "multipart/form-data; boundary=x",
        ),
    ],
)
def test_base64_as_a_body_or_a_field_is_passed_on(body: bytes, kind: str):
    assert "+" in TEXT
    pictures, options = read(body, kind)
    assert pictures == [TEXT.encode()]
    assert options == ({"num_beams": "2"} if b"num_beams" in body else {})


@given(st.binary(max_size=60))
def test_bytes_that_curl_declares_as_a_form_are_the_picture(data: bytes):
    for magic in (b"\xff\xd8\xff", b"\x89PNG", b"GIF89a", b"BM", b"RIFF", b"II*\0"):
        pictures, options = read(magic + data, "application/x-www-form-urlencoded")
        assert (pictures, options) == ([magic + data], {})


@pytest.mark.parametrize("text", [URL, URL.upper(), f"{URL}\n"])
def test_a_body_that_is_a_url(text: str):
    assert file_or_url(text.encode()) == text.strip()


@given(st.binary(max_size=60))
def test_other_bytes_are_no_url(data: bytes):
    assert file_or_url(b"\xff" + data) == b"\xff" + data
    assert file_or_url(b"http:" + data) == b"http:" + data or data.startswith(b"//")


NAMES = ["inputs", "image", "b64", "images", "options", "parameters", "generate_kwargs", "data"]
NAMES += ["shape", "datatype", "name", "do_sample", "temperature", "url", "metadata", "id"]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([TEXT, URL, "BYTES", "data:;base64,AA", "\ud800", *NAMES])
)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)
    ),
    max_leaves=8,
)
TENSOR = st.fixed_dictionaries(
    {"datatype": st.just("BYTES") | JSON},
    optional={"shape": JSON | st.just(-1), "data": JSON, "parameters": JSON},
)
DOCUMENT = st.dictionaries(st.sampled_from(NAMES), JSON, max_size=3) | st.fixed_dictionaries(
    {"inputs": st.lists(TENSOR, max_size=3)}, optional={"parameters": JSON, "outputs": JSON}
)


@given(DOCUMENT, st.none() | st.binary(max_size=9))
def test_no_document_is_a_fault_of_the_gateway(document: dict[str, Any], binary: bytes | None):
    text = json.dumps(document).encode()

    def tensors() -> None:
        InferRequest(text + (binary or b""), None if binary is None else str(len(text)))

    for act in (lambda: read_document(parse_json(text)), tensors):
        try:
            act()
        except GatewayError as error:
            status = error.status_code
        else:
            status = 200
        assert status < 500
