"""Which files of a folder are pictures, and the files that answers are written to."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.command.folder import ALL_EXTENSIONS, Pictures, extensions_of
from client.command.line_files import LineFile, OutputError
from client.command.record_formats import COLUMNS, Csv, JsonLines, RecordFormat
from client.command.text_files import TextFiles
from client.errors import CaptionError
from client.results import Caption, CaptionResult
from model.image.refusals import FORMATS
from tests import ROOT

FAILURE = CaptionError(400, "image_undecodable", 'no\npicture, "at" all')


def answer(text: str, *others: str) -> CaptionResult:
    captions = tuple(Caption(each, 0.5, -1.0, 3, "end", 0.25) for each in (text, *others))
    return CaptionResult(captions, "clipcap", "1.0", ("truncated",))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in (
        "b.jpg",
        "a.PNG",
        "notes.md",
        "b.txt",
        ".hidden.jpg",
        "sub/c.webp",
        "sub/deep/d.heic",
        ".git/e.jpg",
        "sub/f.nef",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def found(folder: Path, *paths: Path, recursive: bool = True) -> tuple[list[str], Pictures]:
    pictures = Pictures(paths or (folder,), ALL_EXTENSIONS, recursive=recursive)
    return [os.path.relpath(each, folder) for each in pictures], pictures


def test_a_folder_gives_its_pictures_sorted(tree: Path):
    names, pictures = found(tree, recursive=False)
    assert names == ["a.PNG", "b.jpg"]
    assert (pictures.others, pictures.folders_left) == (1, 1)


def test_sub_folders_come_after_the_files_beside_them(tree: Path):
    names, pictures = found(tree)
    assert names == ["a.PNG", "b.jpg", "sub/c.webp", "sub/deep/d.heic"]
    assert (pictures.others, pictures.folders_left) == (2, 0)


def test_files_that_are_named_are_taken_whatever_they_are(tree: Path):
    paths = (tree / "notes.md", tree / "sub", tree / "gone.jpg", tree / ("x" * 999))
    assert found(tree, *paths)[0] == [
        "notes.md",
        "sub/c.webp",
        "sub/deep/d.heic",
        "gone.jpg",
        "x" * 999,
    ]


def test_links_do_not_lead_in_circles_and_a_broken_one_is_reported(tree: Path):
    (tree / "sub" / "up").symlink_to(tree)
    (tree / "linked.jpg").symlink_to(tree / "b.jpg")
    (tree / "broken.jpg").symlink_to(tree / "gone.jpg")
    (tree / "circle.jpg").symlink_to(tree / "circle.jpg")
    os.mkfifo(tree / "pipe.jpg")  # reading it would never end
    names, pictures = found(tree)
    assert names == [
        *("a.PNG", "b.jpg", "broken.jpg", "circle.jpg", "linked.jpg"),
        *("sub/c.webp", "sub/deep/d.heic"),
    ]
    assert pictures.folders_left == 1


def test_a_folder_that_cannot_be_read_is_counted(tree: Path, monkeypatch: pytest.MonkeyPatch):
    scandir = os.scandir

    def refuse(folder: Path) -> Any:
        if folder.name == "sub":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    names, pictures = found(tree)
    assert names == ["a.PNG", "b.jpg"]
    assert [folder.name for folder, _ in pictures.unreadable] == ["sub"]


def test_extensions_are_those_of_the_formats_of_the_server():
    assert extensions_of(FORMATS) <= ALL_EXTENSIONS
    for extension in (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".avif", ".heic"):
        assert extension in extensions_of(FORMATS)
    assert extensions_of(["PNG", "JXL"]) == {".png", ".apng", ".jxl"}
    assert extensions_of(None) == ALL_EXTENSIONS


forms = pytest.mark.parametrize("form", [Csv(), JsonLines()], ids=["csv", "jsonl"])


def pictures_in(path: Path, form: RecordFormat) -> list[tuple[str, bool]]:
    """Each record's picture, and whether it has an answer, by the readers of the library."""
    if isinstance(form, Csv):
        with path.open(newline="") as file:
            return [(row["file"], not row["error"]) for row in csv.DictReader(file, strict=True)]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [(line["file"], "error" not in line) for line in lines]


def written(path: Path, form: RecordFormat, outcomes: dict[str, Any], **settings: Any) -> LineFile:
    file = LineFile(path, form, **settings)
    for picture, outcome in outcomes.items():
        file.write(Path(picture), outcome)
    file.close()
    return file


def test_csv_has_a_row_for_each_picture(tmp_path: Path):
    outcomes = {'a "b",c.jpg': answer("a boat", "a ship", 'a "raft"'), "b.jpg": FAILURE}
    written(tmp_path / "a.csv", Csv(), outcomes)
    with (tmp_path / "a.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert list(first) == list(COLUMNS)
    assert (first["file"], first["caption"]) == ('a "b",c.jpg', "a boat")
    assert (first["confidence"], first["quality"], first["finish_reason"]) == ("0.5", "0.25", "end")
    assert (first["other_captions"], first["warnings"]) == ('a ship\na "raft"', "truncated")
    assert (second["caption"], second["error"]) == ("", "image_undecodable")
    assert second["message"] == FAILURE.message


def test_json_lines_hold_the_reply_of_the_server(tmp_path: Path):
    written(tmp_path / "a.jsonl", JsonLines(), {"a.jpg": answer("a boat"), "b.jpg": FAILURE})
    first, second = map(json.loads, (tmp_path / "a.jsonl").read_text().splitlines())
    assert first == {"file": "a.jpg", **answer("a boat").to_dict()}
    assert second["error"] == {"status": 400, "code": FAILURE.code, "message": FAILURE.message}


@forms
def test_the_next_run_knows_the_answers_and_replaces_the_failures(
    tmp_path: Path, form: RecordFormat
):
    path = tmp_path / "out"
    outcomes = {"a.jpg": answer("a"), "b.jpg": FAILURE, "c.jpg": FAILURE, "e.jpg": FAILURE}
    written(path, form, outcomes)
    path.chmod(0o640)
    file = LineFile(path, form)
    assert [file.has(Path(name)) for name in ("a.jpg", "b.jpg", "d.jpg")] == [True, False, False]
    assert file.has(tmp_path.cwd() / "x" / ".." / "a.jpg")
    file.write(Path("b.jpg"), answer("b"))
    file.write(Path("c.jpg"), FAILURE)
    file.close()
    left = [("a.jpg", True), ("e.jpg", False), ("b.jpg", True), ("c.jpg", False)]
    assert pictures_in(path, form) == left
    assert path.stat().st_mode & 0o777 == 0o640
    assert [each.name for each in tmp_path.iterdir()] == ["out"]


@forms
def test_a_record_that_was_cut_off_anywhere_is_taken_off(tmp_path: Path, form: RecordFormat):
    path = tmp_path / "out"
    outcomes = {"a.jpg": answer("a"), 'b\n"x".jpg': answer('a "b"\n', "c"), "c.jpg": FAILURE}
    written(path, form, outcomes)
    whole = path.read_bytes()
    step = 1 if isinstance(form, Csv) else 5  # each place of JSON is like the others
    for end in range(0, len(whole), step):
        path.write_bytes(whole[:end])
        kept = written(path, form, {})
        pictures = pictures_in(path, form)
        assert pictures == [(name, n < 2) for n, name in enumerate(outcomes)][: len(pictures)]
        again = {name: each for name, each in outcomes.items() if not kept.has(Path(name))}
        written(path, form, again)
        assert sorted(pictures_in(path, form)) == sorted(
            (name, n < 2) for n, name in enumerate(outcomes)
        ), end


@forms
def test_a_last_line_without_its_line_break_is_kept(tmp_path: Path, form: RecordFormat):
    path = tmp_path / "out"
    written(path, form, {"a.jpg": answer("a")})
    path.write_bytes(path.read_bytes().rstrip())
    assert written(path, form, {"b.jpg": answer("b")}).torn == 0
    assert pictures_in(path, form) == [("a.jpg", True), ("b.jpg", True)]


@forms
@pytest.mark.parametrize(
    "content",
    [b"my notes", b"my notes\n", b"file,caption\r\na.jpg,a boat\r\n", b'{"a": 1}\n', b"[1]\n\n"],
)
def test_a_file_of_something_else_is_left_as_it_is(
    tmp_path: Path, form: RecordFormat, content: bytes
):
    path = tmp_path / "out"
    path.write_bytes(content)
    with pytest.raises(OutputError, match="is left as it is"):
        LineFile(path, form)
    assert path.read_bytes() == content


@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_rows_after_a_stray_quote_are_not_lost(tmp_path: Path, end: str):
    path = tmp_path / "out"
    written(path, Csv(), {f"{n}.jpg": answer("a") for n in range(40)})
    content = path.read_bytes().replace(b"5.jpg", b'5.jpg"', 1).replace(b"\r\n", end.encode())
    path.write_bytes(content)
    with pytest.raises(OutputError, match="is left as it is"):
        LineFile(path, Csv())
    assert path.read_bytes() == content


@forms
def test_to_begin_anew_removes_the_records_of_a_file(tmp_path: Path, form: RecordFormat):
    path = tmp_path / "out"
    written(path, form, {"a.jpg": answer("a"), "b.jpg": FAILURE})
    written(path, form, {"b.jpg": answer("b")}, fresh=True)
    assert pictures_in(path, form) == [("b.jpg", True)]
    path.write_text("my notes")
    with pytest.raises(OutputError, match="is left as it is"):
        LineFile(path, form, fresh=True)
    assert path.read_text() == "my notes"


@forms
def test_two_runs_do_not_write_to_one_file(tmp_path: Path, form: RecordFormat):
    first = LineFile(tmp_path / "out", form)
    with pytest.raises(OutputError, match="another run writes to"):
        LineFile(tmp_path / "out", form)
    first.close()
    LineFile(tmp_path / "out", form).close()


@forms
def test_a_link_to_a_file_stays_a_link(tmp_path: Path, form: RecordFormat):
    (tmp_path / "link").symlink_to(tmp_path / "out")
    written(tmp_path / "link", form, {"a.jpg": FAILURE})
    written(tmp_path / "link", form, {"a.jpg": answer("a")})
    assert (tmp_path / "link").is_symlink()
    assert pictures_in(tmp_path / "out", form) == [("a.jpg", True)]


@forms
@given(names=st.lists(st.text(st.characters(exclude_characters="\0/")), unique=True))
def test_any_name_and_caption_come_back(
    tmp_path_factory: pytest.TempPathFactory, form: RecordFormat, names: list[str]
):
    path = tmp_path_factory.mktemp("any") / "out"
    names = [f"x{name}.jpg".encode(errors="ignore").decode() for name in names]
    names.append(os.fsdecode(b"caf\xe9.jpg"))  # no UTF-8
    written(path, form, {name: answer(f"of {ascii(name)}", name[:-4]) for name in names[:-1]})
    file = LineFile(path, form)
    file.write(Path(names[-1]), answer("a"))
    file.close()
    again = LineFile(path, form)
    assert all(again.has(Path(name)) for name in names)
    again.close()


@forms
def test_a_full_disk_leaves_no_part_of_a_record(tmp_path: Path, form: RecordFormat):
    code = (
        "import resource, sys, pathlib\n"
        "from tests.unit.client import test_folder as t\n"
        "from client.command.line_files import OutputError\n"
        "form = t.Csv() if sys.argv[2] == 'Csv' else t.JsonLines()\n"
        "file = t.LineFile(pathlib.Path(sys.argv[1]), form)\n"
        "file.write(pathlib.Path('a.jpg'), t.answer('a'))\n"
        "size = pathlib.Path(sys.argv[1]).stat().st_size\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, size + 20))\n"
        "try:\n"
        "    file.write(pathlib.Path('b.jpg'), t.answer('b'))\n"
        "except OutputError as error:\n"
        "    print(error)\n"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "out"), type(form).__name__]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "cannot be written: File too large" in done.stdout
    assert pictures_in(tmp_path / "out", form) == [("a.jpg", True)]


def test_a_text_file_holds_the_captions(tmp_path: Path):
    picture = tmp_path / "photo.one.jpg"
    texts = TextFiles()
    assert not texts.has(picture)
    texts.write(picture, answer("a boat\non a  sea", "a ship"))
    assert (tmp_path / "photo.one.txt").read_text() == "a boat on a sea\na ship\n"
    assert texts.has(picture)
    texts.write(tmp_path / "b.jpg", FAILURE)
    assert not (tmp_path / "b.txt").exists()


def test_a_text_file_that_exists_is_not_touched_unless_told(tmp_path: Path):
    picture, text = tmp_path / "a.jpg", tmp_path / "a.txt"
    text.write_text("mine")
    with pytest.raises(CaptionError, match="it exists") as caught:
        TextFiles().write(picture, answer("a boat"))
    assert caught.value.code == "unwritable_text"
    assert text.read_text() == "mine"
    assert not TextFiles(overwrite=True).has(picture)
    TextFiles(overwrite=True).write(picture, answer("a boat"))
    assert text.read_text() == "a boat\n"
    assert [each.name for each in tmp_path.iterdir()] == ["a.txt"]


def test_an_empty_text_file_is_no_answer(tmp_path: Path):
    (tmp_path / "a.txt").touch()
    assert not TextFiles().has(tmp_path / "a.jpg")
    TextFiles().write(tmp_path / "a.jpg", answer("a boat"))
    assert (tmp_path / "a.txt").read_text() == "a boat\n"


def test_pictures_that_differ_in_their_extensions_only_have_files_of_their_own(tmp_path: Path):
    names = ("a.jpg", "A.png", "b.jpg", "b.json", "c.txt")
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    texts = TextFiles(overwrite=True)
    paths = [texts.path_of(tmp_path / name).name for name in names]
    assert paths == ["a.jpg.txt", "A.png.txt", "b.txt", "b.txt", "c.txt.txt"]


def test_a_text_file_that_cannot_be_written_is_an_error_of_its_picture(tmp_path: Path):
    with pytest.raises(CaptionError, match="cannot be written: No such file") as caught:
        TextFiles().write(tmp_path / "gone" / "a.jpg", answer("a boat"))
    assert caught.value.code == "unwritable_text"
