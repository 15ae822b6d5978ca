"""Pictures that ended the captioner's process are remembered for a while."""

from __future__ import annotations

import time

import pytest

from gateway.captioning import deadly
from gateway.captioning.deadly import DeadlyPictures
from gateway.errors import GatewayError


def is_refused(pictures: DeadlyPictures, picture: bytes, options: dict[str, str]) -> bool:
    try:
        pictures.check(picture, options)
    except GatewayError as error:
        return error.code == "worker_failed"
    return False


def test_a_picture_is_refused_with_the_same_options_for_a_while(monkeypatch: pytest.MonkeyPatch):
    pictures, now = DeadlyPictures(), time.monotonic()
    assert not is_refused(pictures, b"a", {})
    pictures.add(b"a", {"num_beams": "7", "max_tokens": "9"})
    assert is_refused(pictures, b"a", {"max_tokens": "9", "num_beams": "7"})
    assert not is_refused(pictures, b"a", {"num_beams": "6", "max_tokens": "9"})
    assert not is_refused(pictures, b"b", {"num_beams": "7", "max_tokens": "9"})
    monkeypatch.setattr(time, "monotonic", lambda: now + deadly.SECONDS + 60)
    assert not is_refused(pictures, b"a", {"max_tokens": "9", "num_beams": "7"})


def test_the_oldest_are_forgotten_when_there_are_many():
    pictures = DeadlyPictures()
    for number in range(deadly.MANY + 1):
        pictures.add(str(number).encode(), {})
    assert not is_refused(pictures, b"0", {})
    assert is_refused(pictures, b"1", {})
    assert is_refused(pictures, str(deadly.MANY).encode(), {})
