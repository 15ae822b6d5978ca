"""Many pictures with both clients, and when they are sent again, against a real HTTP server."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from client import (
    AsyncCaptionClient,
    CaptionClient,
    CaptionError,
    CaptionResult,
    ServerUnreachable,
    UnreadableFile,
)
from client.results import read_reply
from tests.picture_peer import Peer, caption_of, picture_peer

pytestmark = pytest.mark.usefixtures("no_pauses")

Outcomes = list[tuple[Any, CaptionResult | CaptionError]]


def with_threads(address: str, pictures: Iterable[Any], **given: Any) -> Outcomes:
    settings = {name: given.pop(name) for name in ("retries", "patience") if name in given}
    with CaptionClient(address, timeout=20, **settings) as captioner:
        return list(captioner.caption_many(pictures, **given))


def with_asyncio(address: str, pictures: Iterable[Any], **given: Any) -> Outcomes:
    settings = {name: given.pop(name) for name in ("retries", "patience") if name in given}

    async def go() -> Outcomes:
        async with AsyncCaptionClient(address, timeout=20, **settings) as captioner:
            return [each async for each in captioner.caption_many(pictures, **given)]

    return asyncio.run(go())


both = pytest.mark.parametrize("caption_many", [with_threads, with_asyncio])
Many = Callable[..., Outcomes]


@both
def test_results_come_in_the_order_of_the_pictures(peer: Peer, caption_many: Many):
    peer.delay = 0.002
    pictures = [f"{'busy 1' if n % 7 == 0 else 'ok'} {n}".encode() for n in range(60)]
    outcomes = caption_many(peer.address, pictures, jobs=5)
    assert [picture for picture, _ in outcomes] == pictures
    assert [result.caption for _, result in outcomes if isinstance(result, CaptionResult)] == [
        caption_of(picture.decode()) for picture in pictures
    ]
    assert 1 < peer.most <= 5


@both
def test_a_picture_that_fails_does_not_end_the_others(
    peer: Peer, caption_many: Many, tmp_path: Path
):
    good, missing = tmp_path / "a.jpg", tmp_path / "gone.jpg"
    good.write_bytes(b"a")
    outcomes = dict(caption_many(peer.address, [good, b"bad", missing, str(good)]))
    assert outcomes[good].caption == outcomes[str(good)].caption == "a picture of a"
    assert (outcomes[b"bad"].status, outcomes[b"bad"].code) == (400, "image_undecodable")
    assert isinstance(outcomes[missing], UnreadableFile)
    assert outcomes[missing].message == "No such file or directory"


@both
@pytest.mark.parametrize(
    ("picture", "sent", "code"),
    [
        (b"busy 3", 4, None),
        (b"busy 4", 4, "overloaded"),
        (b"cut 1", 2, None),
        (b"cut 2", 2, "connection_lost"),
        (b"late 1", 2, None),
        (b"late 2", 2, "deadline"),
        (b"bad", 1, "image_undecodable"),
    ],
)
def test_what_is_sent_again_and_how_often(
    peer: Peer, caption_many: Many, picture: bytes, sent: int, code: str | None
):
    [(_, outcome)] = caption_many(peer.address, [picture])
    assert (outcome.code if isinstance(outcome, CaptionError) else None) == code
    assert peer.asked == {picture.decode(): sent}


@both
@pytest.mark.parametrize("picture", [b"busy 1", b"cut 1", b"late 1"])
def test_without_retries_nothing_is_sent_again(peer: Peer, caption_many: Many, picture: bytes):
    [(_, outcome)] = caption_many(peer.address, [picture], retries=0)
    assert isinstance(outcome, CaptionError)
    assert peer.asked == {picture.decode(): 1}


@both
def test_a_patient_client_asks_an_overloaded_server_for_longer(peer: Peer, caption_many: Many):
    [(_, outcome)] = caption_many(peer.address, [b"busy 8"], patience=30)
    assert isinstance(outcome, CaptionResult)
    assert peer.asked["busy 8"] == 9


@both
def test_patience_ends(peer: Peer, caption_many: Many):
    peer.retry_after = "0.2"
    [(_, outcome)] = caption_many(peer.address, [b"busy 99"], retries=1, patience=0.5)
    assert isinstance(outcome, CaptionError)
    assert peer.asked["busy 99"] == 3


@pytest.mark.parametrize("answered", [True, False])
@pytest.mark.parametrize("kind", [CaptionClient, AsyncCaptionClient])
def test_a_server_that_answered_before_is_waited_for_while_it_is_started_again(
    kind: Any, answered: bool
):
    with picture_peer() as first:
        address, port = first.address, int(first.address.rpartition(":")[2])
    ended = threading.Event()

    def serve_later() -> None:
        time.sleep(0.6)
        with picture_peer(port):
            ended.wait(10)

    later = threading.Thread(target=serve_later)
    captioner = kind(address, retries=2, patience=10)
    with asyncio.Runner() as runner:

        def caption(picture: bytes) -> CaptionResult:
            result = captioner.caption(picture)
            return runner.run(result) if kind is AsyncCaptionClient else result

        if answered:
            with picture_peer(port):
                caption(b"one")
        later.start()
        try:
            if answered:
                assert caption(b"two").caption == "a picture of two"
            else:
                with pytest.raises(ServerUnreachable, match="refused"):
                    caption(b"two")
        finally:
            ended.set()
            later.join()


@both
@pytest.mark.parametrize("place", ["header", "date", "body"])
def test_the_time_that_the_server_names_is_waited(peer: Peer, caption_many: Many, place: str):
    peer.retry_after = None
    if place == "header":
        peer.retry_after = "1"
    elif place == "date":  # a whole second, as HTTP has them
        peer.retry_after = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    else:
        peer.retry_after_seconds = 1.0
    begin = time.monotonic()
    [(_, outcome)] = caption_many(peer.address, [b"busy 1"])
    assert isinstance(outcome, CaptionResult)
    assert 0.9 < time.monotonic() - begin < 4


@pytest.mark.parametrize(
    ("retry_after", "date", "seconds"),
    [
        ("7", None, 7),
        ("Sun, 06 Nov 2094 08:49:37 GMT", "Sun, 06 Nov 2094 08:49:07 GMT", 30),
        ("Saturday, 06-Nov-94 08:49:37 GMT", "Sat Nov  6 08:49:07 1994", 30),
        ("Sun Nov  6 08:49:37 2094", "Sun, 06 Nov 2094 08:49:07 GMT", 30),
        ("Sun, 06 Nov 1994 08:49:37 GMT", None, 0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", "yesterday", 0),
        ("yesterday", "Sun, 06 Nov 2094 08:49:07 GMT", None),
    ],
)
def test_a_date_of_the_server_is_read_by_the_clock_of_the_server(
    retry_after: str, date: str | None, seconds: float | None
):
    with pytest.raises(CaptionError) as caught:
        read_reply(503, b"", retry_after, date)
    assert caught.value.retry_after_seconds == seconds


def test_pictures_are_read_as_results_are_taken(peer: Peer):
    taken = 0

    def pictures() -> Iterator[bytes]:
        nonlocal taken
        for _ in range(500):
            taken += 1
            yield b"a"

    with CaptionClient(peer.address) as captioner:
        outcomes = captioner.caption_many(pictures(), jobs=2)
        for _ in range(20):
            next(outcomes)
        time.sleep(0.1)
        assert 20 <= taken <= 20 + 4 * 2
        outcomes.close()  # type: ignore[attr-defined]
        sent = sum(peer.asked.values())
        time.sleep(0.1)
        assert sum(peer.asked.values()) <= sent + 2


def test_asyncio_reads_pictures_as_results_are_taken_and_cancels_what_is_left(peer: Peer):
    peer.delay = 0.01
    taken = 0

    def pictures() -> Iterator[bytes]:
        nonlocal taken
        for _ in range(500):
            taken += 1
            yield b"a"

    async def go() -> None:
        async with AsyncCaptionClient(peer.address) as captioner:
            outcomes = captioner.caption_many(pictures(), jobs=2)
            for _ in range(20):
                await anext(outcomes)
            assert 20 <= taken <= 20 + 4 * 2
            await outcomes.aclose()  # type: ignore[attr-defined]
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(go())


def test_both_clients_are_the_same_over_asyncio_for_one_picture(peer: Peer, tmp_path: Path):
    (tmp_path / "a.jpg").write_bytes(b"a")

    async def go() -> CaptionResult:
        async with AsyncCaptionClient(peer.address) as captioner:
            with pytest.raises(CaptionError, match="400 image_undecodable"):
                await captioner.caption(b"bad")
            with pytest.raises(FileNotFoundError):
                await captioner.caption(tmp_path / "gone.jpg")
            with pytest.raises(ValueError, match="data is the field of the picture"):
                await captioner.caption(b"a", data="x")
            return await captioner.caption(tmp_path / "a.jpg", num_beams=3)

    with CaptionClient(peer.address) as captioner:
        assert asyncio.run(go()) == captioner.caption(tmp_path / "a.jpg", num_beams=3)


def test_a_client_that_is_closed_ends_the_waiting(peer: Peer):
    peer.retry_after = "15"
    captioner = CaptionClient(peer.address, timeout=20)
    threading.Timer(0.2, captioner.close).start()
    begin = time.monotonic()
    with pytest.raises(CaptionError, match="overloaded"):
        captioner.caption(b"busy 1")
    assert time.monotonic() - begin < 5
