"""What all threads of a worker decode at a time is bounded together."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from handler.decoding_memory import DecodingMemory
from handler.requests.caption_request import RequestRefusal
from model.image.decode import BYTES_PER_PIXEL, open_image
from tests.pictures import encoded, picture


def test_threads_wait_until_there_is_memory():
    memory = DecodingMemory(max_pixels=2400)  # for two pictures of 60 x 40 pixels
    needed = open_image(encoded(picture(), "PNG")).memory
    assert needed == BYTES_PER_PIXEL * 2400
    lock, now, most = threading.Lock(), 0, 0

    def decode(_: int) -> None:
        nonlocal now, most
        with memory.reserve(needed, time.monotonic() + 30):
            with lock:
                now += 1
                most = max(most, now)
            time.sleep(0.02)
            with lock:
                now -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(decode, range(16)))
    assert most == 2
    assert memory.used == 0


def test_a_picture_that_needs_more_than_there_is_is_decoded_alone():
    memory = DecodingMemory(max_pixels=1)
    with memory.reserve(10**12, time.monotonic() + 30):
        assert memory.used == memory.limit
        with (
            pytest.raises(RequestRefusal) as caught,
            memory.reserve(1, time.monotonic() + 0.05),
        ):
            pass
    assert caught.value.code == "deadline"
    with memory.reserve(1, time.monotonic()):
        assert memory.used == 1


def test_a_failure_gives_the_memory_back():
    memory = DecodingMemory(max_pixels=1)
    with pytest.raises(KeyError), memory.reserve(5, time.monotonic()):
        raise KeyError
    assert memory.used == 0
