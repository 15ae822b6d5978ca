"""Inputs: what is listed in which order, with which ids, and how the bytes are read."""

from __future__ import annotations

import io
import itertools
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.refusal import Refusal
from scale.inputs.entry import Entry, Kind
from scale.inputs.listing import Listing
from scale.inputs.parquet_rows import Columns
from scale.inputs.reading import PictureReader
from scale.picture_error import PictureError
from tests.file_server import file_server
from tests.pictures import encoded, picture

JPEG = encoded(picture(), "JPEG")


def listed(*inputs: Path | str, columns: Columns | None = None) -> list[Entry]:
    return list(Listing([str(each) for each in inputs], columns or Columns()))


def read(entries: list[Entry], columns: Columns | None = None) -> list[bytes | PictureError]:
    with PictureReader(columns or Columns()) as reader:
        return list(reader.read(entries))


def tar_of(file: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(file, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file


def test_a_folder_gives_its_pictures_sorted_and_says_what_it_passed_over(tmp_path: Path):
    for name in ("b.jpg", "a.PNG", "sub/c.webp", ".hidden.jpg", "notes.md", "sub/.x/d.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "link").symlink_to(tmp_path / "sub")
    listing = Listing([str(tmp_path)], Columns())
    entries = list(listing)
    assert [entry.id for entry in entries] == ["a.PNG", "b.jpg", "sub/c.webp"]
    assert read(entries) == [b"a.PNG", b"b.jpg", b"sub/c.webp"]
    assert dict(listing.passed_over) == {
        "files that are no pictures by their names": 1,
        "links to folders": 1,
    }


def test_a_folder_whose_name_looks_like_a_pattern_is_a_folder(tmp_path: Path):
    (tmp_path / "trip [1]").mkdir()
    (tmp_path / "trip [1]" / "a.jpg").write_bytes(b"a")
    assert [entry.id for entry in listed(tmp_path / "trip [1]")] == ["a.jpg"]


def test_a_list_has_paths_beside_it_and_anywhere(tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(b"a")
    (tmp_path / "b.jpg").write_bytes(b"b")
    file = tmp_path / "list.txt"
    file.write_text(f"in/a.jpg\n\n{tmp_path / 'b.jpg'}\nmissing.jpg\n")
    entries = listed(file)
    assert [entry.id for entry in entries] == ["in/a.jpg", str(tmp_path / "b.jpg"), "missing.jpg"]
    *found, missing = read(entries)
    assert found == [b"a", b"b"]
    assert isinstance(missing, PictureError)
    assert missing.code == "unreadable_file"
    assert "No such file" in missing.message


def test_shards_give_ids_of_shard_and_key(tmp_path: Path):
    tar_of(tmp_path / "000.tar", {"x/1.jpg": b"one", "x/1.txt": b"a caption", "2.left.jpg": b"l"})
    tar_of(tmp_path / "001.tar", {"1.jpg": b"ONE", "2.a.jpg": b"2a", "2.b.jpg": b"2b"})
    entries = listed(tmp_path / "*.tar")
    assert [entry.id for entry in entries] == [
        "000/x/1", "000/2", "001/1", "001/2.a.jpg", "001/2.b.jpg",
    ]  # fmt: skip
    assert read(entries) == [b"one", b"l", b"ONE", b"2a", b"2b"]


def test_a_shard_that_is_cut_short_gives_what_it_has_and_is_said(tmp_path: Path):
    whole = tar_of(tmp_path / "whole.tar", {f"{n}.jpg": bytes(600) for n in range(9)}).read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:4000])
    (tmp_path / "whole.tar").unlink()
    listing = Listing([str(tmp_path)], Columns())
    assert [entry.id for entry in listing] == ["cut/0", "cut/1", "cut/2"]
    assert "cut short" in listing.faults[0]
    assert isinstance(read(listed(tmp_path))[-1], PictureError)  # its bytes end before it does


@pytest.mark.parametrize("group", [3, 100])
@pytest.mark.parametrize("kind", ["binary", "struct"])
def test_parquet_with_bytes_is_read_in_order_whatever_its_groups(
    tmp_path: Path, group: int, kind: str
):
    pictures = [bytes([n]) * 100 for n in range(150)]
    column: list[object] = list(pictures)
    if kind == "struct":
        column = [{"bytes": each, "path": None} for each in pictures]
    table = pa.table({"id": [f"n{n}" for n in range(150)], "image": column})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=group)
    entries = listed(tmp_path / "a.parquet")
    assert entries[7] == Entry("n7", str(tmp_path / "a.parquet"), Kind.ROW, 7)
    assert read(entries) == pictures
    some = entries[5:9] + entries[120:130] + entries[2:4]  # and back
    assert read(some) == pictures[5:9] + pictures[120:130] + pictures[2:4]


def test_parquet_without_ids_has_the_file_and_the_row(tmp_path: Path):
    pq.write_table(pa.table({"jpg": [b"x", None]}), tmp_path / "a.parquet")
    entries = listed(tmp_path)
    assert [entry.id for entry in entries] == ["a.parquet:0", "a.parquet:1"]
    found, empty = read(entries)
    assert found == b"x"
    assert isinstance(empty, PictureError)
    assert empty.code == "no_image"


def test_parquet_with_paths_and_named_columns(tmp_path: Path):
    (tmp_path / "p.jpg").write_bytes(b"p")
    table = pa.table({"where": ["p.jpg", None], "key2": [7, 8], "id": ["a", "b"]})
    pq.write_table(table, tmp_path / "a.parquet")
    entries = listed(tmp_path / "a.parquet", columns=Columns("where", "key2"))
    assert [entry.id for entry in entries] == ["7", "8"]
    found, empty = read(entries)
    assert found == b"p"
    assert isinstance(empty, PictureError)


def test_urls_are_fetched_and_a_failure_is_one_of_that_picture(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("scale.inputs.reading.PAUSE", 0.0)
    with file_server() as server:
        server.files["/a.jpg"] = JPEG
        server.answers = [503, 503]  # and is asked again
        good, bad = f"{server.address}/a.jpg", f"{server.address}/b.jpg"
        (found,) = read(listed(good))
        missing, silent = read(listed(bad, "http://127.0.0.1:9/c.jpg"))
    assert found == JPEG
    assert isinstance(missing, PictureError)
    assert (missing.code, "404" in missing.message) == ("fetch_failed", True)
    assert isinstance(silent, PictureError)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: [folder / "nothing"], "is not there"),
        (lambda folder: [folder], "has no pictures"),
        (lambda folder: [folder / "*.jpg"], "has no pictures"),
        (lambda folder: ["magic://bucket"], "cannot be opened"),
    ],
)
def test_an_input_without_pictures_is_refused(tmp_path: Path, make, message: str):
    with pytest.raises(Refusal, match=message):
        listed(*make(tmp_path))


def test_other_inputs_that_cannot_be_used_are_refused(tmp_path: Path):
    (tmp_path / "a.parquet").write_bytes(b"no table")
    with pytest.raises(Refusal, match="cannot be read as Parquet"):
        listed(tmp_path)
    pq.write_table(pa.table({"n": [1], "image": [2]}), tmp_path / "a.parquet")
    with pytest.raises(Refusal, match="must be bytes or text"):
        listed(tmp_path)
    pq.write_table(pa.table({"n": [1]}), tmp_path / "a.parquet")
    with pytest.raises(Refusal, match="--image-column NAME"):
        listed(tmp_path)
    with pytest.raises(Refusal, match="no column x"):
        listed(tmp_path, columns=Columns(picture="x"))
    tar_of(tmp_path / "a.tar", {"1.jpg": JPEG})
    pq.write_table(pa.table({"image": [JPEG]}), tmp_path / "a.parquet")
    with pytest.raises(Refusal, match=r"name one kind"):
        listed(tmp_path)


def test_listing_is_a_stream(tmp_path: Path):
    file = tmp_path / "list.txt"
    file.write_text("".join(f"{n}.jpg\n" for n in range(100_000)))
    assert [entry.id for entry in itertools.islice(Listing([str(file)], Columns()), 2)] == [
        "0.jpg",
        "1.jpg",
    ]
