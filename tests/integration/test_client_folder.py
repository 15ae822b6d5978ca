"""Folders, options and asyncio: the Python clients against a real TorchServe and gateway."""

from __future__ import annotations

import asyncio
import csv
import json
from pathlib import Path

import pytest

from client import AsyncCaptionClient, CaptionClient, CaptionError, CaptionResult
from client.__main__ import main
from deploy.torchserve import TorchServe
from model.options import OPTIONS
from tests.pictures import broken, sound

SOUND, BROKEN = sound(), broken()


@pytest.fixture(scope="module", params=["rest", "grpc", "gateway"])
def words(request: pytest.FixtureRequest, server: TorchServe, gateway: str) -> list[str]:
    """What the command line says of the server."""
    if request.param == "gateway":
        return ["--address", gateway]
    return ["--address", getattr(server, request.param), "--management", server.management]


def client_of(kind: type, words: list[str]) -> CaptionClient | AsyncCaptionClient:
    management = words[3] if len(words) > 2 else None
    return kind(words[1], timeout=30, management=management)


def test_a_folder_of_pictures_of_every_kind_gets_an_answer_or_an_error_each(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "folder"
    expected = {}
    for sub, pictures in (("sound", SOUND), ("broken", BROKEN)):
        (folder / sub).mkdir(parents=True)
        for name, content in pictures.items():
            path = folder / sub / f"{name}.jpg"
            path.write_bytes(content if sub == "sound" else content[0])
            expected[str(path)] = "" if sub == "sound" else content[2]
    outputs = ["--text", "--csv", str(tmp_path / "a.csv"), "--jsonl", str(tmp_path / "a.jsonl")]
    command = [*words, "--num-captions", "2", str(folder), "--recursive", *outputs]
    assert main(command) == 1
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file, strict=True))
    assert {row["file"]: row["error"] for row in rows} == expected
    for line in (tmp_path / "a.jsonl").read_text().splitlines():
        record = json.loads(line)
        assert record.get("error", {}).get("code", "") == expected[record["file"]]
        if "captions" in record:
            text = Path(record["file"]).with_suffix(".txt").read_text()
            assert text.splitlines() == [
                " ".join(each["caption"].split()) for each in record["captions"]
            ]
            assert len(record["captions"]) == 2
    assert f"{len(SOUND)} captioned, {len(BROKEN)} failed" in capsys.readouterr().err
    assert main(command) == 1
    assert f"0 captioned, {len(SOUND)} skipped" in capsys.readouterr().err


def test_the_server_describes_its_options_and_refuses_in_the_same_words(words: list[str]):
    client = client_of(CaptionClient, words)
    assert isinstance(client, CaptionClient)
    with client:
        refused = []
        for options in ({"num_beams": 99}, {"beams": 5}, {"top_p": "x"}, {"prompt": "x" * 201}):
            for described in (False, True):
                if described:
                    assert list(client.options()) == list(OPTIONS)
                with pytest.raises(CaptionError) as caught:
                    client.caption(SOUND["png"], **options)
                error = caught.value
                # The gateway names fields of requests that are no options too.
                message = error.message.partition(", explain, grid, format")[0]
                refused.append((error.status, error.code, message))
            client._description = None  # as a client that did not ask
        client.options()
        assert client.caption(SOUND["png"], explain="true", grid=2).caption
        assert client.caption(SOUND["png"], features="true", timeout_ms=20_000).caption
    # The gateway itself has a shorter limit for text, and says so in other words.
    count = 3 if len(words) == 2 else 4
    assert refused[: 2 * count : 2] == refused[1 : 2 * count : 2]


def test_asyncio_and_threads_give_the_same(words: list[str], tmp_path: Path):
    (tmp_path / "a.png").write_bytes(SOUND["png"])
    pictures: list[bytes | Path] = [*SOUND.values(), *(each[0] for each in BROKEN.values())]
    pictures += [tmp_path / "a.png", tmp_path / "gone.png"] * 3

    async def go() -> list[tuple[bytes | Path, CaptionResult | CaptionError]]:
        client = client_of(AsyncCaptionClient, words)
        assert isinstance(client, AsyncCaptionClient)
        async with client:
            one = await client.caption(SOUND["png"], num_beams=2)
            assert one.caption
            assert (await client.options())["num_beams"].high == OPTIONS["num_beams"].high
            return [each async for each in client.caption_many(pictures, num_beams=2)]

    client = client_of(CaptionClient, words)
    assert isinstance(client, CaptionClient)
    with client:
        expected = list(client.caption_many(pictures, num_beams=2))
    for (picture, outcome), (other, found) in zip(expected, asyncio.run(go()), strict=True):
        assert picture == other
        if isinstance(outcome, CaptionResult):
            assert isinstance(found, CaptionResult)
            # Scores depend in their last digits on the pictures that share a batch.
            assert found.caption == outcome.caption
            assert found.confidence == pytest.approx(outcome.confidence, abs=1e-4)
        else:
            assert isinstance(found, CaptionError)
            assert (found.status, found.code) == (outcome.status, outcome.code)
