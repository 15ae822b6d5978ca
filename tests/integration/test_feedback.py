"""Feedback at a real gateway in front of a real TorchServe, in SQLite and in PostgreSQL."""

from __future__ import annotations

import asyncio
import base64
import json
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import delete, text, update

from client import AsyncCaptionClient, CaptionClient, CaptionError, Feedback
from deploy.torchserve import TorchServe
from feedback import schema
from feedback.__main__ import main as command
from feedback.answers import new_request_id
from feedback.database import open_database, reading, writing
from feedback.reading import Counts, content, counts, kept_pictures, opinions
from feedback.tables import METADATA, REVISION, answers
from gateway.access.keys import add_key
from gateway.settings import SettingsError
from tests.databases import KINDS, empty_database
from tests.integration.gateways import running, settings_for
from tests.pictures import sound
from tests.postgresql import Cluster

PNG = sound()["png"]
NO_LIMIT = {"feedback_rate": 0}


@pytest.fixture(scope="module", params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return empty_database(request.param, request, tmp_path_factory.mktemp("feedback"))


@pytest.fixture(scope="module")
def served(server: TorchServe, url: str) -> Iterator[str]:
    """A gateway that takes feedback; the database is emptied for each test."""
    with running(settings_for(server, feedback=url, **NO_LIMIT)) as address:
        yield address


@pytest.fixture
def gateway(served: str, url: str) -> str:
    engine = open_database(url)
    with writing(engine) as connection:
        for table in reversed(METADATA.sorted_tables):
            connection.execute(delete(table))
    engine.dispose()
    return served


def ask(gateway: str, headers: dict[str, str] | None = None, **options: Any) -> httpx.Response:
    reply = httpx.post(
        f"{gateway}/v1/captions", content=PNG, params=options, headers=headers, timeout=60
    )
    assert reply.status_code == 200, reply.text
    return reply


def say(gateway: str, reply: httpx.Response | str, **fields: Any) -> httpx.Response:
    request_id = reply if isinstance(reply, str) else reply.headers["X-Request-Id"]
    return httpx.post(f"{gateway}/feedback", json={"request_id": request_id, **fields}, timeout=30)


def refusal(reply: httpx.Response) -> tuple[int, str]:
    return reply.status_code, reply.json()["error"]["code"]


def stored(url: str) -> Counts:
    engine = open_database(url)
    with reading(engine) as connection:
        found = counts(connection)
    engine.dispose()
    return found


def test_thumbs_and_a_correction_are_stored_with_what_was_served(gateway: str, url: str):
    reply = ask(gateway, num_captions=2)
    result = reply.json()["results"][0]
    said = say(gateway, reply, caption_index=1, thumbs="down", correction="two boats — Öl 🚤")
    assert said.status_code == 200
    assert said.json() == {
        "request_id": reply.headers["X-Request-Id"],
        "picture_index": 0,
        "caption_index": 1,
        "caption": result["captions"][1]["caption"],
        "thumbs": "down",
        "correction": "two boats — Öl 🚤",
        "picture_kept": False,
        "replaced": False,
    }
    with reading(open_database(url)) as connection:
        [found] = opinions(connection)
    assert (found.caption, found.thumbs) == (result["captions"][1]["caption"], -1)
    assert found.correction == "two boats — Öl 🚤"
    assert (found.model, found.version) == ("clipcap", "1.0")
    assert abs(found.answered - time.time()) < 60


def test_what_a_client_says_later_takes_the_place_of_the_earlier(gateway: str, url: str):
    reply = ask(gateway)
    picture = base64.b64encode(PNG).decode()
    assert say(gateway, reply, thumbs="up", image=picture).json()["picture_kept"]
    assert stored(url).pictures == 1
    again = say(gateway, reply, thumbs="down").json()
    assert (again["replaced"], again["picture_kept"]) == (True, False)
    assert (stored(url).feedback, stored(url).pictures) == (1, 0)


@pytest.mark.parametrize("form", ["json", "multipart"])
def test_a_picture_is_kept_only_if_it_is_sent_and_is_the_captioned_one(
    gateway: str, url: str, form: str
):
    reply = ask(gateway)
    fields = {"request_id": reply.headers["X-Request-Id"], "correction": "a red square"}

    def send(picture: bytes) -> httpx.Response:
        if form == "multipart":
            file = {"image": ("a.png", picture)}
            return httpx.post(f"{gateway}/feedback", data=fields, files=file, timeout=30)
        coded = {"image": base64.b64encode(picture).decode()}
        return httpx.post(f"{gateway}/feedback", json={**fields, **coded}, timeout=30)

    assert refusal(send(sound()["jpeg"])) == (422, "other_picture")
    assert refusal(send(b"")) == (400, "empty")
    assert refusal(send(b'{"a": 1}')) == (400, "image_undecodable")
    assert stored(url).pictures == 0
    assert send(PNG).json()["picture_kept"]
    engine = open_database(url)
    with reading(engine) as connection:
        [kept] = kept_pictures(connection)
        assert content(connection, kept.sha256) == PNG
    assert kept.corrections == ("a red square",)


def test_a_picture_captioned_as_base64_text_can_be_kept(gateway: str):
    reply = httpx.post(
        f"{gateway}/predictions/clipcap", data={"data": base64.b64encode(PNG).decode()}, timeout=60
    )
    assert reply.status_code == 200
    picture = base64.b64encode(PNG).decode()
    assert say(gateway, reply, thumbs="up", image=picture).json()["picture_kept"]


def test_each_picture_of_a_request_has_its_own_feedback(gateway: str):
    text = base64.b64encode(PNG).decode()
    reply = httpx.post(f"{gateway}/v1/captions", json={"images": [text, "AAAA", text]}, timeout=60)
    captions = [each.get("caption") for each in reply.json()["results"]]
    assert say(gateway, reply, picture_index=2, thumbs="up").json()["caption"] == captions[2]
    assert refusal(say(gateway, reply, picture_index=1, thumbs="up")) == (404, "unknown_picture")
    assert refusal(say(gateway, reply, picture_index=3, thumbs="up")) == (404, "unknown_picture")
    one = say(gateway, reply, caption_index=1, thumbs="up")
    assert refusal(one) == (404, "unknown_caption")


REFUSED: list[tuple[dict[str, Any], tuple[int, str]]] = [
    ({}, (422, "nothing_said")),
    ({"thumbs": "sideways"}, (422, "bad_request")),
    ({"thumbs": 1}, (422, "bad_request")),
    ({"correction": " \u00a0"}, (422, "bad_text")),
    ({"correction": "a\nb"}, (422, "bad_text")),
    ({"correction": "a\0b"}, (422, "bad_text")),
    ({"correction": "a\u2028b"}, (422, "bad_text")),
    ({"correction": "a" * 501}, (422, "bad_text")),
    ({"correction": ["a"]}, (422, "bad_request")),
    ({"caption": "one that was never served", "thumbs": "up"}, (422, "bad_request")),
    ({"picture_index": -1, "thumbs": "up"}, (422, "bad_request")),
    ({"picture_index": 2**70, "thumbs": "up"}, (422, "bad_request")),
    ({"request_id": "a b", "thumbs": "up"}, (422, "bad_request")),
    ({"request_id": "x" * 129, "thumbs": "up"}, (422, "bad_request")),
    ({"thumbs": "up", "image": "%%%"}, (400, "bad_base64")),
    ({"thumbs": "down", "image": "QUJD"}, (422, "no_use")),
    ({"request_id": "never-seen", "thumbs": "up"}, (404, "unknown_request")),
]


def test_what_cannot_be_taken_is_refused_and_stores_nothing(gateway: str, url: str):
    reply = ask(gateway)
    for fields, expected in REFUSED:
        assert refusal(say(gateway, reply, **fields)) == expected, fields
    surrogate = {"request_id": reply.headers["X-Request-Id"], "correction": "a\ud800b"}
    said = httpx.post(f"{gateway}/feedback", content=json.dumps(surrogate))
    assert refusal(said) == (422, "bad_text")
    for body in (b"", b"[]", b"\xff"):
        assert refusal(httpx.post(f"{gateway}/feedback", content=body)) == (400, "bad_json")
    twice = b'{"a":1,"a":2}'
    assert refusal(httpx.post(f"{gateway}/feedback", content=twice)) == (400, "bad_request")
    assert stored(url).feedback == 0


def test_a_form_with_too_much_is_refused(gateway: str):
    files = [("image", ("a", PNG)), ("image", ("b", PNG))]
    two = httpx.post(f"{gateway}/feedback", files=files)
    assert two.status_code == 400
    twice = httpx.post(
        f"{gateway}/feedback",
        content=b'--b\r\nContent-Disposition: form-data; name="thumbs"\r\n\r\nup\r\n' * 2
        + b"--b--\r\n",
        headers={"Content-Type": "multipart/form-data; boundary=b"},
    )
    assert refusal(twice) == (422, "bad_request")


def test_an_answer_that_is_too_old_is_told_so(gateway: str, url: str):
    reply = ask(gateway)
    assert say(gateway, reply, thumbs="up").status_code == 200
    with writing(open_database(url)) as connection:
        connection.execute(update(answers).values(answered=time.time() - 90_000))
    late = say(gateway, reply, thumbs="down")
    assert refusal(late) == (410, "expired")
    assert "25.0 hours ago" in late.json()["error"]["message"]
    # Also when the row is gone: the id tells when it was made.
    old = f"{int((time.time() - 90_000) * 1000):012x}{new_request_id()[12:]}"
    assert refusal(say(gateway, old, thumbs="up")) == (410, "expired")


def test_an_id_that_a_client_chose_is_its_own(server: TorchServe, url: str, tmp_path: Path):
    keys = {name: add_key(tmp_path / "keys", name) for name in ("alice", "bob")}
    settings = settings_for(server, feedback=url, keys=tmp_path / "keys", **NO_LIMIT)

    def say_as(name: str, request_id: str) -> httpx.Response:
        return httpx.post(
            f"{address}/feedback",
            json={"request_id": request_id, "thumbs": "up"},
            headers={"X-API-Key": keys[name]},
        )

    with running(settings) as address:
        assert httpx.post(f"{address}/feedback", json={}).status_code == 401
        chosen = ask(address, {"X-API-Key": keys["alice"], "X-Request-Id": "mine"})
        assert chosen.headers["X-Request-Id"] == "mine"
        assert refusal(say_as("bob", "mine")) == (404, "unknown_request")
        assert say_as("alice", "mine").status_code == 200
        given = ask(address, {"X-API-Key": keys["alice"]}).headers["X-Request-Id"]
        assert say_as("bob", given).status_code == 200  # bob cannot guess it, so alice gave it
        assert not say_as("alice", given).json()["replaced"]


def test_a_restart_and_another_gateway_know_what_was_answered(server: TorchServe, url: str):
    with running(settings_for(server, feedback=url)) as first:
        reply = ask(first)
    with (
        running(settings_for(server, feedback=url)) as second,
        running(settings_for(server, feedback=url)) as third,
    ):
        assert say(second, reply, thumbs="up").status_code == 200
        assert say(third, reply, thumbs="down").json()["replaced"]


def test_limits_of_a_client_and_of_the_database(server: TorchServe, url: str, tmp_path: Path):
    limits = {"feedback_rate": 0.01, "feedback_burst": 4, "feedback_picture_bytes": len(PNG) - 1}
    picture = base64.b64encode(PNG).decode()
    with running(settings_for(server, feedback=url, **limits)) as address:
        reply = ask(address)
        full = say(address, reply, thumbs="up", image=picture)
        assert refusal(full) == (503, "full")
        assert full.headers["Retry-After"] == "3600"
        assert say(address, reply, thumbs="up").status_code == 200
        for expected in (404, 404, 429):
            assert say(address, "unknown", thumbs="up").status_code == expected
        assert ask(address).status_code == 200  # captions have a limit of their own
        metrics = httpx.get(f"{address}/metrics").text
        for line in (
            'gateway_feedback_total{outcome="full"} 1.0',
            'gateway_feedback_total{outcome="too_many_requests"} 1.0',
            'gateway_feedback_total{outcome="unknown_request"} 2.0',
            'gateway_feedback_total{outcome="stored"} 1.0',
            "gateway_feedback_database_up 1.0",
            "gateway_feedback_answers_lost_total 0.0",
        ):
            assert line in metrics
    few = {"feedback_rows": stored(url).feedback, "feedback_picture_bytes": 0, **NO_LIMIT}
    with running(settings_for(server, feedback=url, **few)) as address:
        assert refusal(say(address, ask(address), thumbs="up")) == (503, "full")
        kept = say(address, reply, thumbs="up", image=picture)
        assert refusal(kept) == (422, "no_pictures")
        assert say(address, reply, thumbs="down").json()["replaced"]  # needs no more room


def test_the_operator_deletes_all_of_a_request(gateway: str, url: str, capsys: Any):
    picture = base64.b64encode(PNG).decode()
    first, second = ask(gateway), ask(gateway)
    say(gateway, first, correction="a secret boat", image=picture)
    say(gateway, second, thumbs="up", image=picture)
    words = ["--database", url, first.headers["X-Request-Id"]]
    assert command(["delete", *words]) == 0
    assert "deleted 1 feedbacks, 0 kept pictures and the captions of 1 pictures" in (
        capsys.readouterr().out
    )
    assert (stored(url).feedback, stored(url).pictures, stored(url).answers) == (1, 1, 1)
    if url.startswith("sqlite"):  # nothing is left in the file
        file = Path(url.removeprefix("sqlite:///"))
        for each in file.parent.glob(f"{file.name}*"):
            assert b"a secret boat" not in each.read_bytes()
    assert refusal(say(gateway, first, thumbs="up")) == (404, "unknown_request")
    assert command(["delete", *words]) == 3
    assert command(["delete", "--database", url, second.headers["X-Request-Id"]]) == 0
    assert stored(url).pictures == 0
    assert command(["status", "--database", url]) == 0
    assert "0 feedbacks" in capsys.readouterr().out


def test_the_clients_give_feedback(gateway: str, url: str, tmp_path: Path):
    file = tmp_path / "a.png"
    file.write_bytes(PNG)
    with CaptionClient(gateway) as client:
        result = client.caption(file, num_captions=2)
        said = client.feedback(result, caption_index=1, correction="a red ball", picture=file)
        assert said == Feedback(result.captions[1].caption, None, "a red ball", True, False)
        with pytest.raises(CaptionError, match="caption_index is 2") as raised:
            client.feedback(result, caption_index=2, thumbs="up")
        assert (raised.value.status, raised.value.code) == (404, "unknown_caption")

    async def rate() -> Feedback:
        async with AsyncCaptionClient(gateway) as client:
            result = await client.caption(PNG)
            await client.feedback(result, thumbs="down", picture=None)
            return await client.feedback(str(result.request_id), thumbs="up", picture=PNG)

    said = asyncio.run(rate())
    assert (said.thumbs, said.picture_kept, said.replaced) == ("up", True, True)
    assert stored(url).feedback == 2


def test_a_client_of_torchserve_itself_is_told(server: TorchServe):
    with CaptionClient(server.rest) as client, pytest.raises(CaptionError) as raised:
        client.feedback(client.caption(PNG), thumbs="up")
    assert raised.value.status in (404, 405)
    with CaptionClient(server.grpc, management=server.management) as client:
        result = client.caption(PNG)
        with pytest.raises(ValueError, match="has no request id"):
            client.feedback(result, thumbs="up")
        with pytest.raises(CaptionError, match="takes no feedback; give the address of a gateway"):
            client.feedback("some-id", thumbs="up")


def test_the_description_says_whether_feedback_is_taken(gateway: str, server: TorchServe):
    found = httpx.get(f"{gateway}/v1/description").json()["feedback"]
    assert found == {"hours": 24.0, "max_characters": 500, "pictures": True}
    with running(settings_for(server)) as address:
        assert "feedback" not in httpx.get(f"{address}/v1/description").json()
        assert "/feedback" not in httpx.get(f"{address}/openapi.json").json()["paths"]
        assert refusal(say(address, ask(address), thumbs="up")) == (404, "no_feedback")
        assert "gateway_feedback" not in httpx.get(f"{address}/metrics").text


def test_feedback_goes_on_while_the_captioner_is_overloaded(server: TorchServe, url: str):
    with running(settings_for(server, feedback=url, max_in_flight=1, **NO_LIMIT)) as address:
        reply = ask(address)
        statuses: list[int] = []

        def flood() -> None:
            for _ in range(15):
                flooded = httpx.post(f"{address}/v1/captions", content=PNG, timeout=60)
                statuses.append(flooded.status_code)

        with ThreadPoolExecutor(3) as pool:
            floods = [pool.submit(flood) for _ in range(3)]
            said = []
            while not all(each.done() for each in floods):
                said.append(say(address, reply, thumbs="up").status_code)
    assert 503 in statuses
    assert set(said) == {200}


def test_captions_go_on_without_the_database_and_feedback_comes_back(
    server: TorchServe, postgresql: Cluster, caplog: pytest.LogCaptureFixture
):
    url = postgresql.create(f"outage_{uuid.uuid4().hex[:8]}")
    with running(settings_for(server, feedback=url, **NO_LIMIT)) as address:
        reply = ask(address)
        assert say(address, reply, thumbs="up").status_code == 200
        postgresql.stop()
        try:
            meanwhile = ask(address)
            down = say(address, reply, thumbs="down")
            assert refusal(down) == (503, "feedback_unavailable")
            assert int(down.headers["Retry-After"]) >= 1
            begin = time.monotonic()
            ask(address)
            assert refusal(say(address, reply, thumbs="down")) == (503, "feedback_unavailable")
            assert time.monotonic() - begin < 5
            assert "gateway_feedback_database_up 0.0" in httpx.get(f"{address}/metrics").text
            caplog.clear()
            with running(settings_for(server, feedback=url)) as late:  # it starts without, too
                ask(late)
            assert "cannot be used, captions go on without" in caplog.text
        finally:
            postgresql.start()
        end = time.monotonic() + 20
        while (said := say(address, meanwhile, thumbs="up")).status_code == 503:
            assert time.monotonic() < end
            time.sleep(0.5)
        assert said.status_code == 200  # the caption of the outage was written afterwards
        metrics = httpx.get(f"{address}/metrics").text
        assert "gateway_feedback_answers_lost_total 0.0" in metrics


def refused(server: TorchServe, url: str) -> str:
    """Why a gateway does not start; one line."""
    with (
        pytest.raises(SettingsError, match=r"^GATEWAY_FEEDBACK: .+") as raised,
        running(settings_for(server, feedback=url)),
    ):
        pytest.fail("the gateway started")
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_database_of_a_newer_program_is_refused_at_the_start(server: TorchServe, url: str):
    engine = open_database(url, create=True)
    with writing(engine) as connection:
        connection.execute(text(f"UPDATE {schema.VERSION_TABLE} SET version_num = '9999'"))
    try:
        said = refused(server, url)
    finally:
        with writing(engine) as connection:
            own = {"step": REVISION}
            connection.execute(text(f"UPDATE {schema.VERSION_TABLE} SET version_num = :step"), own)
        engine.dispose()
    assert "has tables of the version 9999, which a newer program made" in said


def test_a_database_that_cannot_be_used_is_refused_at_the_start(
    server: TorchServe, postgresql: Cluster, tmp_path: Path
):
    other = tmp_path / "notes.txt"
    other.write_text("this is no database, and longer than sixteen bytes")
    assert "is no SQLite database" in refused(server, f"sqlite:///{other}")
    assert "cannot be used as a database" in refused(server, f"sqlite:///{tmp_path}")
    assert "does not exist" in refused(server, f"{postgresql.url}_that_is_not_there")
    with_secret = refused(server, "mysql://me:secret@host/db")
    assert "secret" not in with_secret
    assert "begins with 'mysql'" in with_secret
