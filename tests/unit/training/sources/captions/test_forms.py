"""The forms in which public data sets have their captions, on invented content in that form.

Each form of docs/data-sets.md is made here in a folder; the command that the page gives for it is
run by tests/unit/test_pages.py.
"""

from __future__ import annotations

import sys
import unicodedata
from pathlib import Path

import pytest

from model.refusal import Refusal
from tests.caption_forms import FORMS, TWO, Made, numbered, write_json
from training.config import load_config
from training.data.dataset import CaptionDataset
from training.data.json_members import CHUNK
from training.prepare import prepare
from training.sources.captions.columns import Named
from training.sources.captions.read_folder import FolderCaptions, read_folder
from training.sources.captions.recognise import recognise, split_in_name


def read(folder: Path, **settings: object) -> FolderCaptions:
    return read_folder(recognise(folder.resolve(), **settings))  # type: ignore[arg-type]


def said(captions: FolderCaptions) -> dict[str, list[str]]:
    """Path of each picture -> its captions."""
    pictures = captions.pictures
    return {str(pictures[n]): pictures.captions(n) for n in range(len(pictures))}


def splits(captions: FolderCaptions) -> dict[str, str | None]:
    pictures = captions.pictures
    return {str(pictures[n]): pictures[n].split for n in range(len(pictures))}


def make(folder: Path, *overrides: str) -> CaptionDataset:
    out = folder.parent / "made"
    settings = [f"folder.path={folder}", f"folder.out={out}", "folder.workers=0"]
    prepare(load_config(["prepare.source=folder", *settings, *overrides]))
    return CaptionDataset.load(out)


@pytest.mark.parametrize("name", FORMS)
def test_a_form_is_recognised_and_read(name: str, tmp_path: Path):
    form: Made = FORMS[name](tmp_path)
    found = read(tmp_path, **form.settings)
    assert str(found.form).startswith(f"recognised {form.recognised}: "), str(found.form)
    assert said(found) == form.captions
    assert {path: split for path, split in splits(found).items() if split} == form.splits
    assert list(found.reading.faults) == form.faults
    assert {what: n for what, n in found.reading.left_out.items() if n} == form.left_out


@pytest.mark.parametrize("name", FORMS)
def test_a_form_becomes_a_data_set(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "mine"
    form: Made = FORMS[name](folder)
    given = [f"folder.{key}={value}" for key, value in form.overrides.items()]
    drawn = [] if form.splits else ["folder.fractions={train: 1, val: 0, test: 0}"]
    data = make(folder, "folder.on_broken=skip", *given, *drawn)
    assert sorted(data.captions.values()) == sorted(form.captions.values())
    assert "recognised " in capsys.readouterr().out
    for image_id, file in data.files.items():
        assert file.read_bytes()[:4] == b"\x89PNG", data.captions[image_id]


def test_a_caption_file_in_each_split_names_pictures_beside_it(tmp_path: Path):
    for split in ("train", "test"):
        numbered(tmp_path / split / "1.png")
        (tmp_path / split / "metadata.csv").write_text(
            f"file_name,text\n1.png,{split} boat\n2.png,x"
        )
    found = read(tmp_path)
    assert said(found) == {"test/1.png": ["test boat"], "train/1.png": ["train boat"]}
    assert sorted(found.reading.faults) == [
        "test/metadata.csv line 3: 2.png is missing",
        "train/metadata.csv line 3: 2.png is missing",
    ]


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        ("file;caption", ["{};a boat, red", '{};"a ""new"" boat"']),
        ("file\tcaption", ["{}\ta boat, red", '{}\t"a ""new"" boat"']),
        ("sep=;\nFile;Caption", ["{};a boat, red", '{};"a ""new"" boat"']),
        ("sep=|\nfile|caption", ["{}|a boat, red", '{}|a "new" boat']),
        ("file, caption", ['{}, "a boat, red"', '{}, "a ""new"" boat"']),
        ("file| caption", ["{}| a boat, red", '{}| a "new" boat']),
        ('"FILE_NAME","Text"', ['"{}","a boat, red"', '"{}","a ""new"" boat"']),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv_as_it_comes(tmp_path: Path, header: str, rows: list[str], end: str):
    numbered(tmp_path / "a.png")
    lines = [header, *(row.format("a.png") for row in rows), ""]
    (tmp_path / "captions.csv").write_bytes(
        end.join(lines).replace("sep=;\n", f"sep=;{end}").encode()
    )
    found = read(tmp_path)
    assert said(found) == {"a.png": ["a boat, red", 'a "new" boat']}
    assert not found.reading.faults


def test_several_columns_of_captions(tmp_path: Path):
    numbered(tmp_path / "a.png")
    numbered(tmp_path / "b.png")
    (tmp_path / "captions.csv").write_text(
        "image,caption_0,caption_1,caption_2,score\na.png,one,two,,9\nb.png,,,,9\n"
    )
    found = read(tmp_path)
    assert said(found) == {"a.png": ["one", "two"]}
    assert list(found.reading.faults) == ["captions.csv line 3: caption is empty"]


@pytest.mark.parametrize(
    ("written", "way"),
    [
        ("IMAGES/sub/CAFÉ.PNG", "names differ in case, accents or slashes"),
        ("images\\sub\\café.png", "names differ in case, accents or slashes"),
        ("images/sub/cafe\u0301.png", "names differ in case, accents or slashes"),
        ("sub/café", "names lack the extension"),
        ("CAFÉ", "names lack the extension"),
        ("/home/someone/photos/café.png", "pictures lie in another folder than their names say"),
        ("café.png", "pictures lie in another folder than their names say"),
    ],
)
def test_names_are_matched_loosely_and_counted(tmp_path: Path, written: str, way: str):
    for name in ("café.png", "tea.png", "3.png"):
        numbered(tmp_path / "images" / "sub" / name)
    (tmp_path / "captions.csv").write_text(
        f"file,caption\nimages/sub/tea.png,tea\n{written},coffee\n"
    )
    found = read(tmp_path)
    assert said(found) == {"images/sub/tea.png": ["tea"], "images/sub/café.png": ["coffee"]}
    assert found.names.loose() == {way: 1}


def test_decomposed_names_on_disk_are_found(tmp_path: Path):
    name = unicodedata.normalize("NFD", "Bäume für Åse.png")
    numbered(tmp_path / name)
    (tmp_path / "captions.csv").write_text("file,caption\nBäume für Åse.png,trees\n")
    assert list(said(read(tmp_path)).values()) == [["trees"]]


def test_a_name_that_two_pictures_may_have_is_a_fault(tmp_path: Path):
    for folder in ("left", "right"):
        numbered(tmp_path / folder / "A.png")
    (tmp_path / "captions.csv").write_text(
        "file,caption\na.png,a boat\nleft/a.PNG,one\nRIGHT/A,two\n"
    )
    found = read(tmp_path)
    assert said(found) == {"left/A.png": ["one"], "right/A.png": ["two"]}
    (fault,) = found.reading.faults
    assert fault.startswith(
        "captions.csv line 2: a.png may be any of 2 pictures: left/A.png, right/A"
    )


def test_columns_with_other_names_are_given(tmp_path: Path):
    numbered(tmp_path / "a.png")
    (tmp_path / "captions.csv").write_text("Bild,Text neu,caption\na.png,ein Boot,x\n")
    with pytest.raises(Refusal, match=r"none is called file\); name others with folder.file_col"):
        read(tmp_path)
    assert said(read(tmp_path, given=Named("bild", "text neu"))) == {"a.png": ["ein Boot"]}


def test_two_columns_to_choose_from_are_not_guessed_between(tmp_path: Path):
    numbered(tmp_path / "a.png")
    (tmp_path / "captions.csv").write_text("file,caption,text\na.png,x,y\n")
    with pytest.raises(Refusal, match="caption and text may each be the column called caption"):
        read(tmp_path)
    assert said(read(tmp_path, given=Named(caption="text"))) == {"a.png": ["y"]}


def test_two_forms_in_one_folder_are_refused_and_one_can_be_chosen(tmp_path: Path):
    FORMS["Karpathy's JSON for Flickr8k"](tmp_path)
    (tmp_path / "results.csv").write_text(
        f"image_name| comment_number| comment\n{TWO[0]}.png| 0| hi\n"
    )
    words = (
        r"captions in 2 files .*folder.captions=FILE.*\n  .*json: Karpathy's JSON\n  results.csv: "
    )
    with pytest.raises(Refusal, match=words):
        read(tmp_path)
    assert str(read(tmp_path, captions="results.csv").form).startswith("recognised Flickr30k")


def test_a_pattern_chooses_several_files(tmp_path: Path):
    FORMS["COCO in several files"](tmp_path)
    found = read(tmp_path, captions="annotations/captions_*.json")
    assert set(splits(found).values()) == {"train", "val"}
    assert set(splits(read(tmp_path, captions="annotations/captions_val*.json")).values()) == {None}


def test_a_folder_without_captions_says_what_to_do(tmp_path: Path):
    numbered(tmp_path / "a.png")
    with pytest.raises(Refusal, match="no captions in another form that is known"):
        read(tmp_path)
    (tmp_path / "00000.tar").write_bytes(b"")
    with pytest.raises(Refusal, match="prepare.source=webdataset webdataset.shards="):
        read(tmp_path)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "json", "parquet"])
def test_addresses_in_place_of_files_are_refused(tmp_path: Path, kind: str):
    (tmp_path / f"cc3m.{kind}").write_bytes(b"caption\turl\na boat\thttps://example.org/1.jpg\n")
    with pytest.raises(Refusal):
        read(tmp_path)
    if kind == "csv":
        with pytest.raises(Refusal, match="must be downloaded first, as with img2dataset"):
            read(tmp_path, captions="cc3m.csv")


def test_the_text_beside_pictures_is_one_caption_or_one_a_line(tmp_path: Path):
    numbered(tmp_path / "10_boat" / "a.PNG")
    (tmp_path / "10_boat" / "a.txt").write_text("a boat\nat sea\n")
    numbered(tmp_path / "b.png")
    (tmp_path / "b.txt").write_text(" ")
    (tmp_path / "b.tags").write_text("boat, sea")
    (tmp_path / "readme.txt").write_text("no caption")
    found = read(tmp_path)
    assert said(found) == {"10_boat/a.PNG": ["a boat at sea"]}
    assert dict(found.reading.left_out) == {"pictures whose text file is empty": 1}
    assert said(read(tmp_path, each_line=True)) == {"10_boat/a.PNG": ["a boat", "at sea"]}
    assert said(read(tmp_path, extension="tags")) == {"b.png": ["boat, sea"]}
    with pytest.raises(Refusal, match=r"no picture with a text file NAME.words"):
        read(tmp_path, extension=".words")


def test_a_share_of_train_fills_val(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "mine"
    rows = []
    for number in range(40):
        split = "test" if number < 5 else "train"
        numbered(folder / split / f"{number}.png", number)
        rows.append((split, f"{number}.png,a boat"))
    for name in ("train", "test"):
        lines = ["file_name,text", *(row for split, row in rows if split == name)]
        (folder / name / "metadata.csv").write_text("\n".join(lines))
    make(folder)
    assert "training needs both; folder.val_share=0.1 takes" in capsys.readouterr().err
    data = make(folder, "folder.val_share=0.3")
    counts = {name: len(ids) for name, ids in data.splits.items()}
    assert counts["test"] == 5
    assert 4 < counts["val"] < 20
    assert sum(counts.values()) == 40
    with pytest.raises(Refusal, match="folder.val_share is 1.0; it must be"):
        make(folder, "folder.val_share=1")


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("annotations/captions_train2014.json", "train"),
        ("TextCaps_0.1_val.json", "val"),
        ("data/validation-00000-of-00002-abc.parquet", "val"),
        ("coco_karpathy_test.json", "test"),
        ("training/results.csv", "train"),
        ("dataset_flickr8k.json", None),
        ("trainer/captions.csv", None),
    ],
)
def test_splits_in_names(name: str, split: str | None):
    assert split_in_name(name) == split


def test_ids_that_two_files_share_are_not_kept(tmp_path: Path):
    FORMS["COCO in several files"](tmp_path)
    file = tmp_path / "annotations" / "captions_val2017.json"
    file.write_text(file.read_text().replace('id": 139', 'id": 9'))
    found = read(tmp_path)
    assert not found.pictures.has_ids
    assert found.pictures.lost_ids


def test_annotations_before_images_and_text_ids(tmp_path: Path):
    numbered(tmp_path / "a.png")
    write_json(
        tmp_path / "captions.json",
        {
            "annotations": [{"id": "x1", "image_id": 7, "caption": "a boat"}],
            "images": [{"id": "7", "file_name": "a.png"}],
        },
    )
    found = read(tmp_path)
    assert said(found) == {"a.png": ["a boat"]}
    assert found.pictures[0].image_id is None


def test_pictures_in_tables_are_read_in_other_processes(tmp_path: Path):
    for name in ("Parquet with pictures", "save_to_disk"):
        folder = tmp_path / name / "mine"
        FORMS[name](folder)
        data = make(folder, "folder.workers=2")
        assert len(data.files) == (9 if "Parquet" in name else 6)


def test_a_list_may_be_longer_than_what_is_read_at_a_time(tmp_path: Path):
    numbered(tmp_path / "a.png")
    rows = [{"image_id": "a", "caption_str": f"boat {n} {'at sea ' * 9}"} for n in range(5000)]
    write_json(tmp_path / "TextCaps_0.1_val.json", {"data": rows, "dataset_name": "textcaps"})
    assert (tmp_path / "TextCaps_0.1_val.json").stat().st_size > CHUNK
    assert len(said(read(tmp_path))["a.png"]) == 5000


@pytest.mark.parametrize("name", ["²", "7" * 5000, "0007", "7", ".", "..", "\0", "a/../../b", "~"])
def test_odd_names_are_faults(tmp_path: Path, name: str):
    numbered(tmp_path / "x7.png")
    numbered(tmp_path / "y7.png")
    write_json(tmp_path / "captions.json", [{"image_id": name, "caption": "a boat"}])
    found = read(tmp_path)
    assert not len(found.pictures)
    assert len(found.reading.faults) == 1


def test_a_caption_file_may_lie_elsewhere(tmp_path: Path):
    numbered(tmp_path / "mine" / "a.png")
    (tmp_path / "words.csv").write_text("file,caption\na.png,a boat\n")
    assert said(read(tmp_path / "mine", captions=str(tmp_path / "words.csv"))) == {
        "a.png": ["a boat"]
    }


def test_a_damaged_parquet_file_is_refused(tmp_path: Path):
    FORMS["Parquet with pictures"](tmp_path)
    file = next(tmp_path.rglob("*.parquet"))
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(Refusal, match="is damaged or no Parquet"):
        read(tmp_path, captions=str(file.relative_to(tmp_path)))


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    FORMS["Parquet with pictures"](tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(Refusal, match=r"pip install -e '\.\[parquet\]'"):
        read(tmp_path)
