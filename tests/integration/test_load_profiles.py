"""The load test as it is run, for some seconds, against servers of its own and a tiny captioner."""

from __future__ import annotations

import random
from pathlib import Path

import httpx
import pytest

from deploy.torchserve import TorchServe
from gateway.access.keys import add_key
from loadtests.__main__ import run
from loadtests.expected import Expected, WrongReply
from loadtests.kinds import KINDS, Seen, bad_requests, built, error_of
from loadtests.profiles import Profile, Stage, read_profiles
from tests.integration.gateways import running, settings_for


@pytest.fixture(scope="module")
def pictures(tiny_scenes: Path) -> Path:
    return tiny_scenes / "images"


@pytest.fixture(scope="module")
def expected(server: TorchServe, pictures: Path) -> Expected:
    return Expected(pictures, server.rest, random.Random(7))


def test_all_files_of_a_run_are_written(tiny_archive: Path, pictures: Path, tmp_path: Path):
    profiles = read_profiles()
    profile = Profile(
        name="short",
        about="every kind, then more than can be done",
        kinds=profiles["smoke"].kinds,
        clients={"a": 2, "b": 1},
        stages=(
            Stage("peak", users=6, requests=40),
            Stage("overload", times_peak=3, seconds=4),
        ),
        limits={"max_wrong_replies": 0, "max_unanswered": 0, "max_ties_percent": 100},
    )
    result = run(profile, tiny_archive, pictures, tmp_path)
    assert result["problems"] == [], result["figures"]["problems"]
    figures = result["figures"]
    assert figures["requests"] >= 40
    assert set(figures["clients"]) == {"a", "b"}
    assert set(figures["kinds"]) <= set(profile.kinds)
    peak, overload = figures["stages"]["peak"], figures["stages"]["overload"]
    assert overload["wanted_per_second"] == pytest.approx(
        3 * peak["captions_per_second"], rel=0.1, abs=1
    )
    assert {f"{name}_cpu_percent" for name in ("gateway", "worker", "java", "locust")} <= set(
        figures
    )
    written = {file.name for file in tmp_path.iterdir()}
    assert written == {
        "plot.png", "report.html", "requests.csv", "samples.csv", "server", "summary.json",
        "table.md",
    }  # fmt: skip
    assert not [file for file in (tmp_path / "server").iterdir() if "key" in file.name]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gets_the_captions_of_its_pictures(
    kind: str, server: TorchServe, expected: Expected, tmp_path: Path
):
    sent = KINDS[kind]
    key = add_key(tmp_path / "keys", "one")
    with running(settings_for(server, keys=tmp_path / "keys")) as gateway:
        addresses = [gateway, server.rest] if sent.of_torchserve else [gateway]
        for address in addresses:

            def ask(path: str, body: bytes, headers: dict[str, str], to: str) -> httpx.Response:
                given = {**headers, "X-API-Key": key}
                return httpx.post(to + path, content=body, headers=given, timeout=60)

            if "bad" in kind:
                first = next(iter(expected.pictures.values()))
                for name, bad in bad_requests(kind, first).items():
                    reply = ask(sent.path, bad.body, {}, address)
                    found = error_of(reply.content)
                    assert (reply.status_code, found["code"]) == (bad.status, bad.code), name
                continue
            names = [*expected.pictures][: sent.pictures]
            for options in sent.options:
                request = built(sent, [expected.pictures[name] for name in names], options)
                reply = ask(*request, address)
                assert reply.status_code == 200, reply.text
                assert expected.check(names, options, sent.read(reply.content)) == 0


def test_a_reply_to_another_picture_is_found(server: TorchServe, expected: Expected):
    kind = KINDS["predictions_form"]
    one, other = [*expected.pictures][:2]
    request = built(kind, [expected.pictures[one]], {})
    reply = httpx.post(
        server.rest + request.path, content=request.body, headers=request.headers, timeout=60
    )
    [captions] = kind.read(reply.content)
    assert expected.check([one], {}, [captions]) == 0
    for wrong in (
        [captions],  # as of the other picture
        [[Seen(each.caption) for each in captions]],  # the same, without a score
    ):
        with pytest.raises(WrongReply, match=other):
            expected.check([other], {}, wrong)
    with pytest.raises(WrongReply, match="captions of 1 pictures, not 2"):
        expected.check([one, other], {}, [captions])
    with pytest.raises(WrongReply, match="0 captions, not 1"):
        expected.check([one], {}, [[]])


def test_a_folder_without_pictures_is_refused(server: TorchServe, tmp_path: Path):
    with pytest.raises(ValueError, match="has 0 pictures"):
        Expected(tmp_path, server.rest, random.Random(7))
