"""`prepare --look`: what it says of folders, files and shards, and that it changes nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from model.refusal import Refusal
from tests.caption_forms import FORMS, TARS, numbered
from training.config import load_config
from training.prepare import main
from training.sources.look import look


def said(path: Path | str, capsys: pytest.CaptureFixture[str], *overrides: str) -> str:
    look(str(path), load_config(overrides))
    return capsys.readouterr().out


def command(text: str) -> str:
    return text.rstrip().rpartition("\n")[2].strip()


@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_named_and_nothing_changed(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    made = FORMS[name](tmp_path)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    text = said(tmp_path, capsys, *(f"folder.{k}={v}" for k, v in made.overrides.items()))
    assert text.startswith(f"recognised {made.recognised}: ")
    assert f"captions: {sum(map(len, made.captions.values()))}; " in text
    assert f"{len(made.captions)} of them with a caption" in text
    assert "no picture was decoded" in text
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("name", TARS)
def test_shards(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    made = TARS[name](tmp_path)
    text = said(tmp_path, capsys, "webdataset.picture=input.jpg") if name == "two pictures" else ""
    text = text or said(tmp_path, capsys)
    assert f"pictures: {len(made.captions)} with a caption" in text
    assert f"webdataset.shards={tmp_path}" in command(text)
    assert ("names of shards tell train, val" in text) == (name == "a split in each name")


def test_pictures_need_not_be_pictures_to_be_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "a.txt").write_text("\u043a\u0440\u0430\u0441\u043d\u044b\u0439 boat")
    text = said(tmp_path, capsys)
    assert "letters: Cyrillic 64%, Latin 36% (of 1 captions; a guess" in text
    assert "length: 2 words in the middle" in text


def test_a_caption_file_can_be_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    FORMS["CSV"](tmp_path)
    text = said(tmp_path / "captions.csv", capsys)
    assert f"folder.path={tmp_path} experiment=folder folder.captions=captions.csv" in command(text)


def test_a_data_set_is_to_be_used_as_it_is(tiny_scenes: Path, capsys: pytest.CaptureFixture[str]):
    assert f"Use it as it is: features.data={tiny_scenes}" in said(tiny_scenes, capsys)


def test_the_command_takes_a_missing_val_from_train(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for split in ("train", "test"):
        numbered(tmp_path / split / "a.png")
        (tmp_path / split / "metadata.csv").write_text(f"file_name,text\na.png,{split}")
    text = said(tmp_path, capsys)
    assert "splits: test 1, train 1" in text
    assert command(text).endswith("folder.val_share=0.1")


def test_what_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["training.prepare", "--look", str(tmp_path / "none")])
    with pytest.raises(Refusal, match="none does not exist"):
        main()
