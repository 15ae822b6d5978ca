"""Corrections of the gateway's users become a caption data set, or their faults are listed."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from feedback import schema
from feedback.answers import Answer, Served, record
from feedback.database import WRITERS, open_database, writing
from feedback.opinions import Limits, Opinion, add
from model.refusal import Refusal
from tests.pictures import encoded
from training.config import load_config
from training.data.dataset import CaptionDataset
from training.prepare import prepare
from training.sources.look import look

LIMITS = Limits(24, 500, 1000, 1 << 20)
#: Picture, served caption, thumbs, correction, whether the picture is left to train on.
Said = tuple[bytes, str, str | None, str | None, bool]


def png(number: int) -> bytes:
    return encoded(Image.new("RGB", (20 + number, 20), (9 * number, 90, 200)), "PNG")


def fill(url: str, said: Sequence[Said]) -> None:
    engine = open_database(url, create=True)
    schema.upgrade(engine)
    for number, (picture, caption, thumbs, correction, left) in enumerate(said):
        sha256 = hashlib.sha256(picture).hexdigest()
        request, now = f"r{number}", time.time()
        served = (Served(caption, 0.5),)
        opinion = Opinion(
            request, "me", thumbs=thumbs, correction=correction, picture=picture if left else None
        )
        with writing(engine, WRITERS) as connection:
            record(connection, [Answer(request, "", 0, now, "clipcap", "1.0", served, sha256)])
            add(connection, opinion, LIMITS, now)
    engine.dispose()


def make(folder: Path, url: str, *overrides: str) -> CaptionDataset:
    out = folder / "made"
    settings = [
        "prepare.source=feedback",
        f"feedback.database={url}",
        f"feedback.out={out}",
        "feedback.workers=0",
        "feedback.fractions={train: 0.8, val: 0.2, test: 0}",
    ]
    prepare(load_config([*settings, *overrides]))
    return CaptionDataset.load(out)


def captions_of(data: CaptionDataset) -> dict[bytes, list[str]]:
    return {file.read_bytes(): list(data.captions[i]) for i, file in data.files.items()}


def test_corrections_with_a_picture_are_the_captions(
    tmp_path: Path, database: str, capsys: pytest.CaptureFixture[str]
):
    fill(
        database,
        [
            (png(0), "a dog", "down", "  a   red boat ", True),
            (png(0), "a dog", None, "a red boat", True),  # the same words once
            (png(0), "a cat", None, "a boat &amp; a tree", True),
            (png(0), "a dog", "up", None, True),  # somebody corrected this caption
            (png(1), "a house", "up", None, True),
            (png(2), "a bird", "down", "a plane", False),  # without its picture
            (png(3), "a tree", "up", "a green tree", True),
        ],
    )
    data = make(tmp_path, database)
    assert captions_of(data) == {
        png(0): ["a red boat", "a boat & a tree"],
        png(3): ["a green tree"],
    }
    said = capsys.readouterr()
    assert "captions: 3 corrections, 0 with thumbs up" in said.out
    assert "1 with thumbs up that somebody corrected, 1 with thumbs up alone" in said.out
    assert "2 pictures, 3 captions" in said.out
    more = make(tmp_path, database, "feedback.thumbs_up=true")
    assert captions_of(more)[png(1)] == ["a house"]
    assert "captions: 3 corrections, 1 with thumbs up" in capsys.readouterr().out


def test_a_split_depends_on_the_picture_alone(tmp_path: Path, database: str):
    first: list[Said] = [(png(i), "a", None, f"picture {i}", True) for i in range(12)]
    fill(database, first)
    before = splits(make(tmp_path, database))
    assert set(before.values()) == {"train", "val"}
    other = f"sqlite:///{tmp_path / 'more.db'}"
    fill(other, [*first[::-1], *((png(i), "a", None, "more", True) for i in range(24))])
    after = splits(make(tmp_path, other))
    assert {picture: after[picture] for picture in before} == before
    assert len(after) == 24


def splits(data: CaptionDataset) -> dict[bytes, str]:
    return {data.files[i].read_bytes(): split for split, ids in data.splits.items() for i in ids}


def test_a_picture_that_cannot_be_decoded(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    url = f"sqlite:///{tmp_path / 'feedback.db'}"
    fill(url, [(png(i), "a", None, f"picture {i}", True) for i in range(8)])
    fill_broken = b"\xff\xd8 no picture"
    engine = open_database(url)
    sha256 = hashlib.sha256(fill_broken).hexdigest()
    with writing(engine, WRITERS) as connection:
        served = (Served("a", 0.5),)
        record(connection, [Answer("x", "", 0, time.time(), "clipcap", "1.0", served, sha256)])
        opinion = Opinion("x", "me", correction="a boat", picture=fill_broken)
        add(connection, opinion, LIMITS, time.time())
    with pytest.raises(Refusal, match=rf"1 fault; .*on_broken=skip:\n  picture {sha256}: "):
        make(tmp_path, url)
    assert not (tmp_path / "made").exists()
    data = make(tmp_path, url, "feedback.on_broken=skip")
    assert len(captions_of(data)) == 8
    assert sha256 in capsys.readouterr().err
    assert not list((tmp_path / "made").rglob(f"{sha256}*"))


def test_what_cannot_be_made_is_refused(tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'feedback.db'}"
    with pytest.raises(Refusal, match=r"feedback.database: .*feedback.db does not exist"):
        make(tmp_path, url)
    fill(url, [(png(0), "a", "up", None, True)])
    with pytest.raises(Refusal, match="has no correction with a picture; people leave one"):
        make(tmp_path, url)
    fill_one: list[Said] = [(png(0), "a", None, "one", True)]
    other = f"sqlite:///{tmp_path / 'one.db'}"
    fill(other, fill_one)
    with pytest.raises(Refusal, match="of 1 pictures with a correction none came to"):
        make(tmp_path, other)
    with pytest.raises(Refusal, match=r"feedback.fractions are .* add up to 1"):
        make(tmp_path, other, "feedback.fractions.val=2")
    with pytest.raises(Refusal, match="feedback.database: the URL of the database begins with 'a'"):
        make(tmp_path, "a://b")


def test_a_look_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    url = f"sqlite:///{tmp_path / 'feedback.db'}"
    fill(url, [(png(0), "a", None, "one", True), (png(1), "b", "up", None, True)])
    look(url, load_config())
    said = capsys.readouterr().out
    assert "pictures to train on: 1 with 1 corrections" in said
    assert "with feedback.thumbs_up=true: 2 pictures, and 1 captions more" in said
    assert f"prepare.source=feedback feedback.database={url}" in said
