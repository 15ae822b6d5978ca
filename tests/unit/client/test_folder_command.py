"""`python -m client` over folders: what is written, skipped, counted, and left when it is ended."""

from __future__ import annotations

import csv
import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from client.__main__ import main
from tests.picture_peer import Peer, caption_of

pytestmark = pytest.mark.usefixtures("no_pauses")

DESCRIPTION: dict[str, Any] = {
    "model": {"name": "clipcap", "version": "1.0"},
    "formats": ["JPEG", "XYZ"],
    "options": {"num_beams": {"type": "int", "from": 1, "to": 8, "default": 5, "help": "width"}},
}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.jpg", "b.JPG", "sub/c.png", "notes.md"):
        (folder / name).write_text(name)
    return folder


def run(peer: Peer, *words: object) -> int:
    return main(["--address", peer.address, "--timeout", "20", *map(str, words)])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file, strict=True))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_folder_is_captioned_to_standard_output(
    peer: Peer, photos: Path, capsys: pytest.CaptureFixture[str]
):
    assert run(peer, photos) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        f"{photos / name}: a picture of {name}  (0.50)" for name in ("a.jpg", "b.JPG")
    ]
    assert re.match(r"2 captioned, 0 failed; [0-9.]+ s, [0-9.]+ pictures/s\n", err)
    assert "passed over: 1 file without the name of a picture, 1 folder (--recursive reads" in err


def test_text_csv_and_json_lines_are_written_together(
    peer: Peer, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    outputs = ["--text", "--csv", tmp_path / "a.csv", "--jsonl", tmp_path / "a.jsonl"]
    assert run(peer, photos, "--recursive", *outputs) == 0
    names = ["a.jpg", "b.JPG", "sub/c.png"]
    assert [
        Path(row["file"]).relative_to(photos).as_posix() for row in rows(tmp_path / "a.csv")
    ] == names
    assert [line["caption"] for line in lines(tmp_path / "a.jsonl")] == list(map(caption_of, names))
    assert lines(tmp_path / "a.jsonl")[0]["quality"] == 0.75
    for name in names:
        assert (photos / name).with_suffix(".txt").read_text() == f"{caption_of(name)}\n"
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("3 captioned, 0 failed")


@pytest.mark.parametrize("kind", ["--text", "--csv", "--jsonl"])
def test_what_has_an_answer_is_skipped_and_counted(
    peer: Peer, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
):
    words = [photos, kind, *([] if kind == "--text" else [tmp_path / "out"])]
    assert run(peer, *words) == 0
    (photos / "new.jpg").write_text("new")
    assert run(peer, *words) == 0
    assert peer.asked == {"a.jpg": 1, "b.JPG": 1, "new": 1}
    assert "1 captioned, 2 skipped (they had an answer), 0 failed" in capsys.readouterr().err
    assert run(peer, *words, "--overwrite") == 0
    assert peer.asked == {"a.jpg": 2, "b.JPG": 2, "new": 2}


def test_an_output_that_lacks_an_answer_gets_it_and_the_other_is_left(
    peer: Peer, photos: Path, tmp_path: Path
):
    (photos / "a.txt").write_text("mine")
    assert run(peer, photos, "--text", "--csv", tmp_path / "a.csv") == 0
    assert len(rows(tmp_path / "a.csv")) == 2
    assert (photos / "a.txt").read_text() == "mine"


def test_a_picture_that_is_named_twice_is_written_once(peer: Peer, photos: Path, tmp_path: Path):
    assert run(peer, photos, photos / "a.jpg", "--csv", tmp_path / "a.csv") == 0
    assert len(rows(tmp_path / "a.csv")) == 2


def test_failures_are_counted_by_their_codes_recorded_and_tried_again(
    peer: Peer,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("COLUMNS", "160")
    for n in range(5):
        (photos / f"d[{n}].jpg").write_text(f"bad {n}")
    (photos / "e.jpg").symlink_to("gone")
    words = [photos, "--csv", tmp_path / "a.csv", "--jsonl", tmp_path / "a.jsonl"]
    assert run(peer, *words) == 1
    err = capsys.readouterr().err
    assert re.search(r"image_undecodable +5 +\[it\] is image_undecodable", err)
    assert re.search(r"unreadable_file +1 +No such file or directory", err)
    assert "d[2].jpg" in err
    assert "d[3].jpg" not in err
    assert "2 captioned, 6 failed" in err
    assert Counter(row["error"] for row in rows(tmp_path / "a.csv")) == {
        "": 2,
        "image_undecodable": 5,
        "unreadable_file": 1,
    }
    assert sum("error" in line for line in lines(tmp_path / "a.jsonl")) == 6
    for n in range(4):
        (photos / f"d[{n}].jpg").write_text(f"mended {n}")
    assert run(peer, *words) == 1
    assert "4 captioned, 2 skipped (they had an answer), 2 failed" in capsys.readouterr().err
    for found in (rows(tmp_path / "a.csv"), lines(tmp_path / "a.jsonl")):
        assert len(found) == len({each["file"] for each in found}) == 8


def test_failures_of_text_files_are_printed(
    peer: Peer, photos: Path, capsys: pytest.CaptureFixture[str]
):
    (photos / "a.jpg").write_text("bad")
    assert run(peer, photos, "--text") == 1
    err = capsys.readouterr().err
    assert f"{photos / 'a.jpg'}: [it] is image_undecodable (image_undecodable)\n" in err
    assert not (photos / "a.txt").exists()


def test_the_formats_of_the_server_say_which_files_are_pictures(peer: Peer, photos: Path):
    (photos / "new.xyz").write_text("new")
    peer.description = DESCRIPTION
    assert run(peer, photos, "--recursive") == 0
    assert peer.asked == {"a.jpg": 1, "b.JPG": 1, "new": 1}


def test_a_wrong_option_is_refused_before_anything_is_sent(
    peer: Peer, photos: Path, capsys: pytest.CaptureFixture[str]
):
    peer.description = DESCRIPTION
    assert run(peer, photos, "--num-beams", "99") == 1
    assert capsys.readouterr().err == (
        "error: option num_beams is '99'; it must be a whole number from 1 to 8 (422 bad_option)\n"
    )
    assert run(peer, photos, "--beams", "9") == 1
    assert not peer.asked


def test_a_run_ends_at_an_error_that_every_picture_would_get(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for n in range(50):
        (photos / f"{n}.jpg").write_text("x")
    words = ["--address", "http://127.0.0.1:9", str(photos), "--csv", str(tmp_path / "a.csv")]
    assert main(words) == 1
    assert rows(tmp_path / "a.csv") == []
    err = capsys.readouterr().err
    assert "0 captioned, 1 failed" in err
    assert "stopped at the first unreachable, which every other picture would get too" in err


@pytest.mark.parametrize("words", [["--recursive"], ["--text"]])
def test_a_folder_without_pictures_is_an_error(
    peer: Peer, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
):
    (tmp_path / "x").mkdir()
    assert run(peer, tmp_path, *words) == 1
    assert f"error: there is no picture in {tmp_path}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--csv", "{notes}"], "notes.md is left as it is: its record 1 is"),
        (["--jsonl", "{notes}"], "notes.md is left as it is: its record 1 is"),
        (["--csv", "/nowhere/a.csv"], "/nowhere/a.csv cannot be written: No such file"),
        (["--jsonl", "{folder}"], "cannot be written: Is a directory"),
    ],
)
def test_an_output_that_cannot_be_written_is_said_before_anything_is_sent(
    peer: Peer, photos: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
):
    places = {"notes": photos / "notes.md", "folder": photos}
    assert run(peer, photos, *(word.format(**places) for word in words)) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert said in shown
    assert len(shown.splitlines()) == 1
    assert not peer.asked


def test_overwrite_needs_something_to_overwrite(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["a.jpg", "--overwrite"])
    assert capsys.readouterr().err == "error: --overwrite needs --text, --csv or --jsonl\n"


def test_names_that_are_no_text_go_through(
    peer: Peer, photos: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
):
    (photos / os.fsdecode(b"caf\xe9.jpg")).write_text("odd")
    (photos / "new\nline.jpg").write_text("bad")
    assert run(peer, photos) == 1
    words = [photos, "--text", "--csv", tmp_path / "a.csv", "--jsonl", tmp_path / "a.jsonl"]
    assert run(peer, *words) == 1
    assert run(peer, *words) == 1
    assert peer.asked == {"a.jpg": 2, "b.JPG": 2, "odd": 2, "bad": 3}
    assert rb"caf\udce9.jpg: a picture of odd" in capfdbinary.readouterr().out
