"""The thread that writes feedback: what it does when the database does not answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from client import Caption, CaptionResult
from feedback.database import open_database, reading, writing
from feedback.opinions import Opinion, Stored
from feedback.reading import counts
from gateway.access.callers import Caller
from gateway.errors import GatewayError
from gateway.feedback import recorder as module
from gateway.feedback.measures import FeedbackMeasures
from gateway.feedback.recorder import Recorder
from gateway.settings import Settings

RESULT = CaptionResult((Caption("a dog", 0.5, -1.0, 3),), "clipcap", "1.0")


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("feedback.database.LOCK_SECONDS", 0.05)
    for name, seconds in (("FLUSH_SECONDS", 0.05), ("PAUSE_SECONDS", 0.2)):
        monkeypatch.setattr(module, name, seconds)
    return f"sqlite:///{tmp_path / 'feedback.db'}"


@pytest.fixture
def recorder(url: str) -> Iterator[Recorder]:
    made = Recorder(Settings(feedback=url), FeedbackMeasures(CollectorRegistry()))
    made.start()
    yield made
    made.stop()


def answer(recorder: Recorder, *request_ids: str) -> None:
    async def record() -> None:
        for each in request_ids:
            await recorder.record(Caller("me", 0.0, request_id=each), 0, RESULT, b"a picture")

    asyncio.run(record())


def say(recorder: Recorder, request_id: str) -> Stored:
    return asyncio.run(recorder.submit(Opinion(request_id, "me", thumbs="up")))


def lost(recorder: Recorder) -> float:
    return recorder.measures.answers_lost._value.get()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def written(url: str) -> int:
    with reading(open_database(url)) as connection:
        return counts(connection).answers


def test_a_feedback_sees_an_answer_that_was_just_given(recorder: Recorder):
    for number in range(20):
        answer(recorder, f"r{number}")
        assert say(recorder, f"r{number}").caption == "a dog"


def test_answers_wait_for_the_database_and_the_oldest_are_dropped_and_counted(
    recorder: Recorder, url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "MOST_WAITING", 3)
    engine = open_database(url)
    with writing(engine):  # another program holds the lock
        answer(recorder, *(f"r{number}" for number in range(5)))
        until(lambda: lost(recorder) == 2)
        with pytest.raises(GatewayError) as raised:
            say(recorder, "r4")
        assert (raised.value.status_code, raised.value.code) == (503, "feedback_unavailable")
        assert raised.value.retry_after == 1
        until(lambda: recorder.measures.database_up._value.get() == 0)
    until(lambda: written(url) == 3)
    assert say(recorder, "r4").caption == "a dog"
    assert recorder.measures.database_up._value.get() == 1
    assert lost(recorder) == 2


def test_what_waits_is_written_at_the_end(recorder: Recorder, url: str):
    answer(recorder, "r", "s")
    recorder.stop()
    assert written(url) == 2


def test_what_cannot_be_written_at_the_end_is_counted(recorder: Recorder, url: str):
    with writing(open_database(url)):
        answer(recorder, "r", "s")
        recorder.stop()
    assert (lost(recorder), written(url)) == (2, 0)


def test_a_fault_ends_neither_the_thread_nor_is_it_silent(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def fails(*_: object) -> None:
        raise RuntimeError("a fault of the code")

    with monkeypatch.context() as patch:
        patch.setattr(module.answers, "record", fails)
        answer(recorder, "r")
        with pytest.raises(GatewayError):
            say(recorder, "r")
    assert "a fault of the code" in caplog.text
    assert lost(recorder) == 1
    answer(recorder, "s")
    assert say(recorder, "s").caption == "a dog"


def test_too_much_feedback_at_once_is_refused(
    recorder: Recorder, url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "MOST_FEEDBACK", 4)
    monkeypatch.setattr("feedback.database.LOCK_SECONDS", 5)
    answer(recorder, "r")

    async def many() -> list[object]:
        one = Opinion("r", "me", thumbs="up")
        with writing(open_database(url)):
            return await asyncio.gather(
                *(recorder.submit(one) for _ in range(12)), return_exceptions=True
            )

    outcomes = asyncio.run(many())
    assert any(isinstance(each, GatewayError) for each in outcomes)
    assert all(isinstance(each, GatewayError | Stored) for each in outcomes)
