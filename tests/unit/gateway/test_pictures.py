"""Pictures as base64 text."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import GatewayError
from gateway.pictures.options import option_texts
from gateway.pictures.reading import decode_base64, parse_json, read_picture

DESCRIPTION = {"options": {"num_beams": {}, "num_captions": {}}}


@given(st.binary(max_size=200))
def test_every_alphabet_gives_the_bytes(data: bytes):
    for text in (
        base64.b64encode(data).decode(),
        base64.urlsafe_b64encode(data).decode(),
        base64.encodebytes(data).decode(),
        f"data:image/jpeg;base64,{base64.b64encode(data).decode()}",
        f"DATA:;base64,{base64.b64encode(data).decode()}",
    ):
        assert decode_base64(text, "image") == data


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, "bad_base64"),
        (b"AAAA", "bad_base64"),
        ("A", "bad_base64"),
        ("ä", "bad_base64"),
        ("\ud800", "bad_base64"),
        ("data:image/png,AAAA", "bad_base64"),
        ("data:image/png;base64", "bad_base64"),
        ("https://example.org/a.png", "no_urls"),
        ("HTTP://example.org/a.png", "no_urls"),
    ],
)
def test_what_is_not_base64_is_refused_with_its_place(value: object, code: str):
    with pytest.raises(GatewayError, match=r"images\[3\]") as raised:
        decode_base64(value, "images[3]")
    assert (raised.value.status_code, raised.value.code) == (400, code)


@pytest.mark.parametrize("url", ["http://example.org/a.png", "HTTPS://example.org/?a=data:"])
def test_a_url_is_kept_where_one_may_stand(url: str):
    assert read_picture(url, "image") == url
    with pytest.raises(GatewayError, match="image is a URL; on this route"):
        decode_base64(url, "image")


@pytest.mark.parametrize("text", ["ftp://example.org/a.png", " http://example.org/a.png", "http:/"])
def test_text_of_another_kind_must_be_base64(text: str):
    with pytest.raises(GatewayError) as raised:
        read_picture(text, "image")
    assert raised.value.code == "bad_base64"
    assert read_picture("QUJD", "image") == b"ABC"


@given(st.binary(max_size=50) | st.text(max_size=50).map(str.encode))
def test_a_body_is_an_object_or_refused(body: bytes):
    try:
        parsed = json.loads(body)
    except ValueError:
        parsed = None
    if isinstance(parsed, dict):
        assert parse_json(body) == parsed
    else:
        with pytest.raises(GatewayError, match="JSON"):
            parse_json(body)


def test_options_keep_the_value_that_was_given():
    given_ = {"num_beams": 5, "num_captions": "3"}.items()
    assert option_texts(DESCRIPTION, given_) == {"num_beams": "5", "num_captions": "3"}
    for value, text in ((True, "true"), (None, "null"), ([1], "[1]")):
        assert option_texts(DESCRIPTION, [("num_beams", value)]) == {"num_beams": text}


def test_an_unknown_option_and_one_given_twice_are_refused():
    with pytest.raises(GatewayError, match="known options: num_beams, num_captions") as raised:
        option_texts(DESCRIPTION, [("\ud800", 1)])
    with pytest.raises(GatewayError, match="num_beams holds half a character"):
        option_texts(DESCRIPTION, [("num_beams", "\ud800")])
    assert raised.value.code == "unknown_option"
    with pytest.raises(GatewayError, match="given twice"):
        option_texts(DESCRIPTION, [("num_beams", 1), ("num_beams", 1)])
