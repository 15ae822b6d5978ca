"""What people say of captions: added, replaced, limited, deleted, read; in both databases."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, update

from feedback import schema
from feedback.answers import (
    Answer,
    Served,
    made_at,
    new_request_id,
    owner_of,
    prune,
    record,
    storable,
)
from feedback.database import WRITERS, open_database, reading, writing
from feedback.erasing import erase, expire
from feedback.errors import OpinionRefused
from feedback.opinions import Limits, Opinion, Stored, add, check
from feedback.reading import counts, kept_pictures, opinions
from feedback.tables import feedback

LIMITS = Limits(hours=24, text=500, rows=1000, bytes=1000)
PICTURE = b"the bytes of a picture"
SHA256 = hashlib.sha256(PICTURE).hexdigest()


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    made = open_database(database, create=True)
    schema.upgrade(made)
    yield made
    made.dispose()


def answer(request_id: str, *captions: str, owner: str = "", hours: float = 0, picture=0) -> Answer:
    served = tuple(Served(text, 0.5, 0.25) for text in captions or ("a dog",))
    now = time.time() - 3600 * hours
    return Answer(request_id, owner, picture, now, "clipcap", "1.0", served, SHA256)


def say(
    engine: Engine, request_id: str, caller: str = "me", limits: Limits = LIMITS, **more
) -> Stored:
    opinion = Opinion(request_id, caller, **more)
    check(opinion, limits)
    with writing(engine, WRITERS) as connection:
        return add(connection, opinion, limits, time.time())


def write(engine: Engine, *given: Answer) -> None:
    with writing(engine) as connection:
        record(connection, given)


def test_several_clients_rate_a_caption_once_each(engine: Engine):
    write(engine, answer("r", "a dog", "a cat — ŝ 🐈"))
    assert say(engine, "r", "alice", caption_index=1, thumbs="up").caption == "a cat — ŝ 🐈"
    assert not say(engine, "r", "bob", caption_index=1, thumbs="down").replaced
    assert say(engine, "r", "bob", caption_index=1, thumbs="up").replaced
    assert not say(engine, "r", "bob", thumbs="up").replaced  # another caption
    with reading(engine) as connection:
        assert [each.thumbs for each in opinions(connection)] == [1, 1, 1]


def test_an_id_that_is_used_again_means_the_latest_answer(engine: Engine):
    owner = owner_of("mine", "me", True)
    write(engine, answer("mine", "a dog", owner=owner))
    assert say(engine, "mine", thumbs="up").caption == "a dog"
    write(engine, answer("mine", "a cat", owner=owner))
    second = say(engine, "mine", thumbs="up")
    assert (second.caption, second.replaced) == ("a cat", False)
    with pytest.raises(OpinionRefused, match="no caption of the request mine") as raised:
        say(engine, "mine", "somebody", thumbs="up")
    assert raised.value.code == "unknown_request"


def test_ids_tell_when_they_were_made_and_are_never_the_same():
    ids = {new_request_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert {len(each) for each in ids} == {32}
    made = made_at(ids.pop())
    assert made is not None
    assert abs(made - time.time()) < 60
    assert made_at("mine") is None
    assert made_at("0123456789abcdef0123456789abcde!") is None


def test_the_size_of_all_pictures_is_limited_and_equal_ones_count_once(engine: Engine):
    limits = Limits(24, 500, 1000, len(PICTURE))
    write(engine, answer("r"), answer("s"))
    assert say(engine, "r", limits=limits, thumbs="up", picture=PICTURE).picture_kept
    assert say(engine, "s", limits=limits, correction="a cat", picture=PICTURE).picture_kept
    with reading(engine) as connection:
        assert counts(connection).picture_bytes == len(PICTURE)
        [kept] = kept_pictures(connection)
    assert (kept.sha256, kept.corrections, kept.praised) == (SHA256, ("a cat",), ("a dog",))
    assert kept.corrected == ("a dog",)
    erase(engine, "r")
    with reading(engine) as connection:
        assert counts(connection).pictures == 1  # the other feedback keeps it
    erase(engine, "s")
    with reading(engine) as connection:
        assert (counts(connection).pictures, counts(connection).answers) == (0, 0)


def test_a_feedback_that_is_refused_leaves_nothing(engine: Engine):
    write(engine, answer("r"))
    for more, code in (
        ({"correction": "a cat", "picture": b"another"}, "other_picture"),
        ({"thumbs": "up", "caption_index": 1}, "unknown_caption"),
        ({"thumbs": "up", "picture_index": 1}, "unknown_picture"),
    ):
        with pytest.raises(OpinionRefused) as raised:
            say(engine, "r", **more)
        assert raised.value.code == code
    with reading(engine) as connection:
        assert (counts(connection).feedback, counts(connection).pictures) == (0, 0)


def test_old_answers_are_deleted_and_what_was_said_of_them_stays(engine: Engine):
    write(engine, answer("old", hours=25), *(answer(f"r{i}") for i in range(5)))
    say(engine, "r0", thumbs="up")
    with writing(engine) as connection:
        assert prune(connection, 24, 1000, time.time()) == 1
        assert prune(connection, 24, 2, time.time()) == 3
        assert prune(connection, 24, 2, time.time()) == 0
    with reading(engine) as connection:
        assert (counts(connection).answers, counts(connection).feedback) == (2, 1)
    with pytest.raises(OpinionRefused):
        say(engine, "r0", thumbs="down")


def test_old_feedback_and_its_pictures_are_deleted(engine: Engine):
    write(engine, answer("r"), answer("s"))
    say(engine, "r", thumbs="up", picture=PICTURE)
    say(engine, "s", thumbs="up")
    with writing(engine, WRITERS) as connection:
        assert expire(connection, 10, time.time()) == (0, 0)
        old = update(feedback).where(feedback.c.request_id == "r")
        connection.execute(old.values(given=time.time() - 11 * 86400))
        assert expire(connection, 10, time.time()) == (1, 1)
    with reading(engine) as connection:
        assert (counts(connection).feedback, counts(connection).pictures) == (1, 0)


def test_text_is_stored_as_it_was_given(engine: Engine):
    write(engine, answer("r", storable("a\0b")))
    text = "  <b>two</b> 'boats'; DROP TABLE feedback -- \u200d👩\u200d🚀 ‏שלום  "
    assert say(engine, "r", correction=text).caption == "a\ufffdb"
    with reading(engine) as connection:
        [found] = opinions(connection)
    assert found.correction == text
