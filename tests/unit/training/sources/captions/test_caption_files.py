"""Caption files: what is read from each format, and each fault with its line."""

from __future__ import annotations

import csv
import json
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.refusal import Refusal
from training.sources.captions import caption_text
from training.sources.captions.csv_rows import MAX_LINES, csv_rows
from training.sources.captions.entry import Entry, Reading
from training.sources.captions.recognise import recognise


def read(
    folder: Path, name: str, content: str | bytes, changes: Counter[str] | None = None
) -> tuple[list[Entry], list[str]]:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    reading = Reading(changes=Counter() if changes is None else changes)
    entries = [entry for entry, _ in recognise(folder, name).entries(reading)]
    return entries, list(reading.faults)


def test_csv_as_spreadsheets_write_it(tmp_path: Path):
    text = (
        "\ufeffImage, Caption ,licence,split\r\n"
        'a.jpg,"a boat, a ""red"" one\nat sea",cc0,train\r\n\r\n'
        "b ü.png,  ein   Haus ,,val\r\n"
        "a.jpg,a boat,,train"
    )
    entries, faults = read(tmp_path, "x.csv", text)
    assert faults == []
    assert entries == [
        Entry("x.csv line 2", "a.jpg", ['a boat, a "red" one at sea'], "train"),
        Entry("x.csv line 5", "b ü.png", ["ein Haus"], "val"),
        Entry("x.csv line 6", "a.jpg", ["a boat"], "train"),
    ]


def test_json_lines_with_one_caption_or_several(tmp_path: Path):
    lines = [{"file_name": "a.jpg", "captions": ["one", "two"]}, {"file": "b.jpg", "caption": "x"}]
    text = "\n".join(json.dumps(line) for line in lines) + "\n\n"
    entries, faults = read(tmp_path, "x.jsonl", text)
    assert faults == []
    assert [(e.where, e.file, e.captions, e.split) for e in entries] == [
        ("x.jsonl line 1", "a.jpg", ["one", "two"], None),
        ("x.jsonl line 2", "b.jpg", ["x"], None),
    ]


def test_coco_captions_keep_their_ids_and_repeated_captions(tmp_path: Path):
    coco = {
        "images": [{"id": 9, "file_name": "a.jpg", "split": "val"}],
        "annotations": [{"id": i, "image_id": 9, "caption": " a\nboat "} for i in (1, 2)],
    }
    entries, faults = read(tmp_path, "x.json", json.dumps(coco))
    assert faults == []
    assert entries == [
        Entry(f"x.json annotations[{n}]", "a.jpg", ["a boat"], "val", 9) for n in (0, 1)
    ]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("a.jpg", "has 1 fields, the header has 2"),
        ("a.jpg,a boat, a tree", "has 3 fields, the header has 2"),
        (",a boat", "file is empty"),
        ("a.jpg,  ", "caption is empty"),
        ('a.jpg,"a boat" here', "cannot be read as CSV"),
        ('a.jpg,"never closed', "cannot be read as CSV"),
    ],
)
def test_every_fault_of_a_csv_line(tmp_path: Path, line: str, fault: str):
    entries, faults = read(tmp_path, "x.csv", f"file,caption\nsame.jpg,a house\n{line}\n")
    assert len(entries) == len(faults) == 1
    assert faults[0].startswith(f"x.csv line 3: {fault}")


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "must be like"),
        ('{"caption": "a boat"}', "must have one file"),
        ('{"file": "a", "image": "a", "caption": "b"}', "must have one file"),
        ('{"file": "a", "caption": "b", "captions": ["b"]}', "must have one file"),
        ('{"file": "a"}', "must have one file"),
        ('{"file": "a", "captions": []}', "captions must be a list"),
        ('{"file": 3, "caption": "b"}', "file is 3, which is no text"),
        ('{"file": "a", "caption": null}', "caption is null, which is no text"),
        ('{"file": "a", "caption": [["b"]]}', "caption is a list or an object, which is no text"),
        ('{"file": "a", "caption": {}}', "caption is a list or an object, which is no text"),
        ('{"file": "a", "caption": "b", "split": ""}', "split is empty"),
        ('{"file": "a", "caption": "\\ud800"}', "caption '\\ud800' has half of a character"),
        ('{"file": "a", "caption": "b", "split": "trian"}', "split is 'trian'; it must be one of"),
        ('{"file": "a", "captions": ["nan"]}', "caption is 'nan', which stands for a missing"),
    ],
)
def test_every_fault_of_a_json_line(tmp_path: Path, line: str, fault: str):
    entries, faults = read(tmp_path, "x.jsonl", f'{{"file": "s", "caption": "t"}}\n{line}\n')
    assert len(entries) == len(faults) == 1
    assert faults[0].startswith(f"x.jsonl line 2: {fault}")


def test_an_unclosed_quote_costs_its_own_row_only(tmp_path: Path):
    rows = [f"{n}.jpg,picture {n}" for n in range(30)]
    rows[10] = '10.jpg,"picture 10'
    entries, faults = read(tmp_path, "x.csv", "\n".join(["file,caption", *rows, ""]))
    assert [entry.file for entry in entries] == [f"{n}.jpg" for n in range(30) if n != 10]
    assert len(faults) == 1
    assert faults[0].startswith("x.csv line 12: cannot be read as CSV")
    assert "takes in 19 lines behind it; close the quote" in faults[0]


@pytest.mark.parametrize(
    "later", ['5.jpg,"a house, red"', '5.jpg,he said "', '5.jpg,a 3"" pipe"', '"5.jpg",a "house"']
)
def test_a_quote_that_a_later_row_closes_takes_no_row_with_it(tmp_path: Path, later: str):
    rows = ['a.jpg,"a boat', "1.jpg,a tree", later, "6.jpg,a bird"]
    entries, faults = read(tmp_path, "x.csv", "\n".join(["file,caption", *rows]))
    assert {"1.jpg", "6.jpg"} <= {entry.file for entry in entries}
    assert all("jpg" not in text for entry in entries for text in entry.captions)
    assert faults[0].startswith("x.csv line 2: cannot be read as CSV")


def test_a_quoted_caption_over_several_lines_stays_one_caption(tmp_path: Path):
    text = 'caption,file\n"a boat,\nred\nat sea",b.jpg\n"one, two\nat ""sea""",c.jpg\n'
    entries, faults = read(tmp_path, "x.csv", text)
    assert faults == []
    assert [(e.file, e.captions) for e in entries] == [
        ("b.jpg", ["a boat, red at sea"]),
        ("c.jpg", ['one, two at "sea"']),
    ]


def test_many_unclosed_quotes_take_little_time(tmp_path: Path):
    start = time.process_time()
    entries, faults = read(tmp_path, "x.csv", "file,caption\n" + 'a","\n' * 4000)
    assert time.process_time() - start < 10
    assert entries == []
    assert f"takes in more than {MAX_LINES - 1} lines" in faults[0]


def test_a_caption_with_a_fault_is_left_out_without_the_others_of_its_line(tmp_path: Path):
    line = {"file": "a", "captions": ["b", "b ", "", "c", "NaN", 3, "['d', 'null', 'e']"]}
    entries, faults = read(tmp_path, "x.jsonl", json.dumps(line))
    assert [entry.captions for entry in entries] == [["b", "c", "d", "e"]]
    assert faults == [
        "x.jsonl line 1: has the same caption twice (b)",
        "x.jsonl line 1: caption is empty",
        "x.jsonl line 1: caption is 'NaN', which stands for a missing value",
        "x.jsonl line 1: caption is 3, which is no text",
        "x.jsonl line 1: caption is 'null', which stands for a missing value",
    ]


@pytest.mark.parametrize("text", ["<!--" * 30_000, "&" + "amp;" * 30_000, "['a'" + "[" * 100_000])
def test_hostile_captions_take_little_time(tmp_path: Path, text: str):
    start = time.process_time()
    entries, _ = read(tmp_path, "x.jsonl", json.dumps({"file": "a", "caption": text + "b'] c"}))
    assert time.process_time() - start < 5
    assert len(entries) == 1


@pytest.mark.parametrize(
    ("written", "captions", "change"),
    [
        ("fish &amp; chips", ["fish & chips"], caption_text.ENTITIES),
        ("a 3&amp;quot;&nbsp; pipe", ['a 3" pipe'], caption_text.ENTITIES),
        ("caf&#233;", ["café"], caption_text.ENTITIES),
        ("a boat<br>at <b>sea</b><br/>", ["a boat at sea"], caption_text.TAGS),
        ("&lt;br&gt;a boat", ["a boat"], caption_text.TAGS),
        ("['a dog', \"a cat's tail\"]", ["a dog", "a cat's tail"], caption_text.LISTS),
        ('["a dog", "a cat"]', ["a dog", "a cat"], caption_text.LISTS),
        ("<person> on a boat", ["<person> on a boat"], caption_text.OTHER_TAGS),
        ("AT&T and R&D; 3 < 4 > 2", ["AT&T and R&D; 3 < 4 > 2"], None),
        ("['a' sign]", ["['a' sign]"], None),
        ("[" * 5000, ["[" * 5000], None),
        ("Nan bakes bread", ["Nan bakes bread"], None),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "jsonl", "json"])
def test_text_of_web_pages_and_of_pandas_becomes_plain_captions(
    tmp_path: Path, written: str, captions: list[str], change: str | None, kind: str
):
    quoted = written.replace('"', '""')
    coco = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [{"image_id": 1, "caption": written}],
    }
    content = {
        "csv": f'file,caption\na.jpg,"{quoted}"\n',
        "jsonl": json.dumps({"file": "a.jpg", "caption": written}),
        "json": json.dumps(coco),
    }
    changes: Counter[str] = Counter()
    entries, faults = read(tmp_path, f"x.{kind}", content[kind], changes)
    assert faults == []
    assert [entry.captions for entry in entries] == [captions]
    counted = {name: count for name, count in changes.items() if count}
    assert counted.get(change, 0) == (1 if change else 0)
    assert change or not counted


@pytest.mark.parametrize(
    ("written", "split"),
    [
        *(("Train", "train"), ("training", "train"), ("validation", "val"), ("Dev", "val")),
        *(("VALID", "val"), ("TEST", "test"), ("Test_Night", "test_night")),
        ("restval", "restval"),
    ],
)
def test_other_words_for_a_split_are_understood(tmp_path: Path, written: str, split: str):
    entries, faults = read(tmp_path, "x.csv", f"file,caption,split\na.jpg,a boat,{written}")
    assert faults == []
    assert entries[0].split == split


@pytest.mark.parametrize(
    ("images", "annotations", "fault"),
    [
        ([{"id": 1, "file_name": "b"}], [], "images[1]: id is already used by x.json images[0]"),
        ([{"id": "", "file_name": "b"}], [], 'images[1]: id is ""; it must be a whole number'),
        ([{"id": -2, "file_name": "b"}], [], "images[1]: id is -2"),
        ([{"id": True, "file_name": "b"}], [], "images[1]: id is true"),
        ([{"id": 2**63, "file_name": "b"}], [], "images[1]: id is 9223372036854775808"),
        ([{"id": 2}], [], "images[1]: file_name is null"),
        (["b"], [], "images[1]: must be an object"),
        ([], [{"image_id": 7, "caption": "b"}], "annotations[1]: image_id 7 is no image"),
        ([], [{"image_id": 1}], "annotations[1]: caption is null"),
        ([], [{"id": 5, "image_id": 1, "caption": "b"}], "annotations[1]: id is already used by"),
        ([], [3], "annotations[1]: must be an object"),
    ],
)
def test_every_fault_of_coco_captions(
    tmp_path: Path, images: list[object], annotations: list[object], fault: str
):
    coco = {
        "images": [{"id": 1, "file_name": "a"}, *images],
        "annotations": [{"id": 5, "image_id": 1, "caption": "c"}, *annotations],
    }
    entries, faults = read(tmp_path, "x.json", json.dumps(coco))
    assert {entry.file for entry in entries} == {"a"}
    assert len(faults) == 1
    assert faults[0].startswith(f"x.json {fault}")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.csv", "", "x.csv is empty; its first line must be: file,caption"),
        ("x.csv", "name,caption\n", r"columns \['name', 'caption'\]; it must have one called file"),
        ("x.csv", "url,caption\n", "addresses of pictures must be downloaded first"),
        ("x.csv", "file,name;caption\n", "name others with folder.file_column=NAME"),
        ("x.csv", "file,image,caption\n", "one called file"),
        ("x.json", "{", "is not JSON"),
        ("x.json", "[" * 100_000, "is not JSON"),
        ("x.json", "[]", "must have lists `images` and `annotations`"),
        ("x.json", '{"images": [], "annotations": {}}', "must have lists"),
        ("x.doc", "", "give a .csv, .jsonl or .json file"),
        ("x.csv", b"file,caption\na,caf\xe9\nb,\xfc", r"on 2 lines; .*\n  line 2, byte 6 is 0xe9"),
        ("x.csv", "file,caption\n".encode("utf-16"), "not UTF-8 on 1 lines"),
    ],
)
def test_a_file_that_cannot_be_read_at_all_is_refused(
    tmp_path: Path, name: str, content: str | bytes, words: str
):
    with pytest.raises(Refusal, match=words):
        read(tmp_path, name, content)


def test_a_long_list_of_faults_is_cut_and_counted(tmp_path: Path):
    with pytest.raises(Refusal, match="on 50 lines(?s:.*)line 20, (?s:.*)… and 30 more$"):
        read(tmp_path, "x.csv", b"\xff\n" * 50)


@pytest.mark.parametrize("separator", [",", ";"])
def test_lines_without_quotes_are_split_as_by_the_standard_library(separator: str):
    lines = ["file,caption\n", "a.jpg, a boat \r\n", "\n", ",\n", "  ,x", "\0;é,b\n", "c;;d\r\n"]
    slow = csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)
    expected = [row for row in slow if row]
    assert [row for _, row in csv_rows(lines, ["file"], separator)] == expected


WILD = st.text(st.sampled_from('",\n\r\t\0 ab\\é\u2028\ufeff{}[]:1;'), max_size=60)


@settings(max_examples=200, deadline=None)
@given(WILD)
def test_whatever_a_file_holds_each_line_is_an_entry_or_a_fault(
    tmp_path_factory: pytest.TempPathFactory, text: str
):
    folder = tmp_path_factory.getbasetemp()
    entries, faults = read(folder, "x.csv", "file,caption\n" + text)
    assert all(entry.file and all(entry.captions) for entry in entries)
    assert len(entries) + len(faults) <= len(text) + 1
    lines = [line for line in text.removeprefix("\ufeff").split("\n") if line.strip()]
    entries, faults = read(folder, "x.jsonl", text)
    assert len(entries) + len(faults) == len(lines)


PLAIN = st.text(max_size=20).filter(
    lambda text: not set("&<[") & set(text) and text.strip().lower() not in caption_text.MISSING
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=20), PLAIN), max_size=4, unique=True))
def test_what_is_written_is_what_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
):
    folder = tmp_path_factory.getbasetemp()
    text = "\n".join(json.dumps({"file": name, "caption": caption}) for name, caption in rows)
    entries, faults = read(folder, "x.jsonl", text)
    sound = {(name.strip(), " ".join(caption.split())): None for name, caption in rows}
    assert [(e.file, *e.captions) for e in entries] == [pair for pair in sound if all(pair)]
    assert len(entries) + len(faults) == len(rows)
