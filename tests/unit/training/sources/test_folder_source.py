"""A folder of pictures becomes a data set, or all its faults are listed and nothing is written."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from model.refusal import Refusal
from tests.pictures import broken, encoded, picture
from training.config import load_config
from training.data.dataset import CaptionDataset
from training.prepare import prepare
from training.sources.splits import DrawnSplits


def numbered(number: int) -> bytes:
    """A picture file that no other number gives."""
    return encoded(Image.new("RGB", (12, 12), (number // 256, number % 256, 0)), "PNG")


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Twelve pictures in three places, two captions each, in a CSV file with splits."""
    folder = tmp_path / "mine"
    for first, place in enumerate(("", "images", "sub/deep")):
        (folder / place).mkdir(parents=True, exist_ok=True)
        for number in range(4):
            file = folder / place / f"{place[:1]}{number}.png"
            file.write_bytes(numbered(4 * first + number))
    names = [f"{place}{n}.png" for place in ("", "i", "sub/deep/s") for n in range(4)]
    rows = [
        f"{name},picture {name} seen {time},{'test' if '3' in name else 'train'}"
        for time in ("once", "twice")
        for name in names
    ]
    (folder / "captions.csv").write_text("\n".join(["file,caption,split", *rows]))
    return folder


def make(folder: Path, *overrides: str, **given: object) -> CaptionDataset:
    out = folder.parent / "made"
    settings = [
        "prepare.source=folder",
        f"folder.path={folder}",
        f"folder.out={out}",
        "folder.workers=0",
    ]
    prepare(load_config([*settings, *overrides]), **given)
    return CaptionDataset.load(out)


def write(folder: Path, *rows: str) -> None:
    (folder / "captions.csv").write_text("\n".join(["file,caption", *rows]))


def test_the_data_set_has_the_pictures_captions_and_splits(
    mine: Path, capsys: pytest.CaptureFixture[str]
):
    data = make(mine)
    assert {name: len(ids) for name, ids in data.splits.items()} == {"train": 9, "test": 3}
    for image_id, file in data.files.items():
        said = file.relative_to(data.root / "images").as_posix()
        (original,) = mine.rglob(file.name)
        assert file.read_bytes() == original.read_bytes()
        assert data.captions[image_id] == [f"picture {said} seen {t}" for t in ("once", "twice")]
        assert (image_id in data.splits["test"]) == ("3" in said)
    shown = capsys.readouterr()
    assert "made: 12 pictures, 24 captions: train 9, test 3" in shown.out
    assert "no caption" not in shown.err


def test_one_name_in_two_folders_makes_two_pictures(mine: Path):
    (mine / "images" / "0.png").write_bytes(encoded(picture((30, 30)), "PNG"))
    with (mine / "captions.csv").open("a") as file:
        file.write("\nimages/0.png,another picture,train")
    data = make(mine)
    names = [file.relative_to(data.root / "images").as_posix() for file in data.files.values()]
    assert len(set(names)) == len(names) == 13
    assert (data.root / "images/0.png").read_bytes() == (mine / "0.png").read_bytes()
    assert (data.root / "images/images/0.png").read_bytes() == (mine / "images/0.png").read_bytes()


def test_the_copy_and_the_folder_are_independent(mine: Path):
    data = make(mine)
    before = {f: f.read_bytes() for f in mine.rglob("*") if f.is_file()}
    for file in data.files.values():
        file.write_bytes(b"changed")
    assert {f: f.read_bytes() for f in mine.rglob("*") if f.is_file()} == before


def test_new_pictures_do_not_change_the_split_of_older_ones(mine: Path):
    for number in range(400):
        (mine / f"n{number}.png").write_bytes(numbered(1000 + number))
    write(mine, *(f"n{number}.png,a boat" for number in range(300)))
    few = make(mine)
    write(mine, *(f"n{number}.png,a boat" for number in reversed(range(400))))
    many = make(mine)
    assert split_of(few).items() <= split_of(many).items()
    counts = Counter(split_of(many).values())
    assert 290 <= counts["train"] <= 350
    assert 20 <= counts["val"] <= 65
    assert 20 <= counts["test"] <= 65
    assert split_of(make(mine, seed=2)) != split_of(many)


def split_of(data: CaptionDataset) -> dict[str, str]:
    """File name of each picture -> its split."""
    return {data.files[i].name: name for name, ids in data.splits.items() for i in ids}


def test_a_dozen_pictures_fill_every_split(mine: Path, capsys: pytest.CaptureFixture[str]):
    names = [f"n{number}.png" for number in range(400)]
    for number, name in enumerate(names):
        (mine / name).write_bytes(numbered(1000 + number))
    write(mine, *(f"{name},a boat" for name in names))
    natural = split_of(make(mine))
    capsys.readouterr()
    only_train = [name for name in names if natural[name] == "train"]
    write(mine, *(f"{name},a boat" for name in only_train[:12]))
    few = split_of(make(mine))
    assert Counter(few.values()) == {"train": 10, "val": 1, "test": 1}
    said = capsys.readouterr().err
    in_val = next(name for name, split in few.items() if split == "val")
    assert f"note: no picture came to val at random, so it gets the nearest one, {in_val};" in said
    assert few == split_of(make(mine))
    # More pictures of train: only the two that fill a split may change theirs.
    write(mine, *(f"{name},a boat" for name in only_train[:40]))
    more = split_of(make(mine))
    assert set(more.values()) == {"train", "val", "test"}
    moved = {name for name in few if few[name] != more[name]}
    assert moved <= {name for name in few if few[name] != "train"}
    # With pictures in every split, all have their own.
    write(mine, *(f"{name},a boat" for name in names))
    assert split_of(make(mine)) == natural


def test_the_nearest_picture_fills_a_split():
    fractions = {"train": 0.5, "val": 0.25, "test": 0.25}
    drawn = DrawnSplits(fractions)
    keys = [key for key in map(str, range(200)) if drawn.split(key) == "train"][:5]
    for image_id, key in enumerate(keys):
        drawn.add(key, image_id, f"{image_id << 193:064x}")  # its digest is the id
    numbers = [int(hashlib.sha256(key.encode()).hexdigest()[:16], 16) for key in keys]
    nearest = sorted(range(5), key=lambda image_id: -numbers[image_id])
    assert drawn.moves(()) == {nearest[0]: "val", nearest[1]: "test"}
    # A picture that is there twice is not parted from its copy.
    assert drawn.moves({nearest[0]}) == {nearest[1]: "val", nearest[2]: "test"}
    assert DrawnSplits({"train": 1.0, "val": 0.0}).empty() == ["train"]


@pytest.mark.parametrize("split", ["test", "train"])
def test_one_picture_under_two_names_is_in_one_split_only(
    mine: Path, split: str, capsys: pytest.CaptureFixture[str]
):
    shutil.copy(mine / "0.png", mine / "copy.png")
    with (mine / "captions.csv").open("a") as file:
        file.write(f"\ncopy.png,another name,{split}")
    if split == "train":  # the split of 0.png
        assert len(make(mine).files) == 13
        return
    words = (
        r"1 fault in .*\n  captions.csv line 26: copy.png is in split 'test', but has the same "
        r"bytes as 0.png \(captions.csv line 2\) in split 'train'; remove one"
    )
    with pytest.raises(Refusal, match=words):
        make(mine)
    assert len(make(mine, "folder.on_broken=skip").files) == 12
    assert "left out for 1 fault" in capsys.readouterr().err


def test_unknown_splits_are_refused_before_anything_is_written(mine: Path):
    text = (mine / "captions.csv").read_text()
    (mine / "captions.csv").write_text(text.replace(",test", ",holdout"))
    with pytest.raises(Refusal, match=r"split is 'holdout'; it must be one of train .*; val \(val"):
        make(mine)
    (mine / "captions.csv").write_text(text.replace(",test", ",Validation"))
    data = make(mine)
    assert {name: len(ids) for name, ids in data.splits.items()} == {"train": 9, "val": 3}


def test_a_data_set_that_cannot_be_trained_on_says_so(
    mine: Path, capsys: pytest.CaptureFixture[str]
):
    make(mine)
    assert "note: no picture is in split val; the data set can" in capsys.readouterr().err


def test_the_sha256_of_every_picture_is_kept(mine: Path):
    data = make(mine)
    for image in json.loads((data.root / "captions.json").read_text())["images"]:
        content = data.files[image["id"]].read_bytes()
        assert image["sha256"] == hashlib.sha256(content).hexdigest()


def test_changed_captions_are_counted(mine: Path, capsys: pytest.CaptureFixture[str]):
    (mine / "captions.csv").write_text(
        "file,caption,split\n0.png,a &amp; b,train\n1.png,c &lt; d<br>,val"
    )
    data = make(mine)
    assert list(data.captions.values()) == [["a & b"], ["c < d"]]
    said = capsys.readouterr().err
    assert "captions that are not plain text:\n  2 had HTML entities such as &amp;" in said
    assert "\n  1 had HTML tags" in said


def test_json_lines_and_coco_captions_are_sources_too(mine: Path):
    (mine / "captions.csv").unlink()
    coco = {
        "images": [
            {"id": 70 + n, "file_name": f"i{n}.png", "split": ["train", "val"][n % 2]}
            for n in range(4)
        ],
        "annotations": [{"image_id": 70 + n, "caption": f"boat {n}"} for n in range(4)],
    }
    (mine / "other.json").write_text(json.dumps(coco))
    data = make(mine, "folder.captions=other.json")
    assert data.captions == {70 + n: [f"boat {n}"] for n in range(4)}
    assert {n: list(ids) for n, ids in data.splits.items()} == {"train": [70, 72], "val": [71, 73]}
    lines = [{"image": "0.png", "captions": ["a", "b"], "split": "val"}]
    (mine / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    data = make(mine)
    assert data.captions == {1: ["a", "b"]}
    assert {n: list(ids) for n, ids in data.splits.items()} == {"val": [1]}


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda folder: (folder / "0.png").unlink(), "line 3: 0.png is missing"),
    **{
        f"broken picture: {name}": (
            lambda folder, data=data: (folder / "0.png").write_bytes(data),
            f"line 3: .*/0.png: .*{'pixel' if 'bomb' in name else ''}",
        )
        for name, (data, _, _) in broken().items()
    },
    "leaves the folder": (lambda folder: write(folder, "1.png,a", "../0.png,b"), "line 3: .*outs"),
    "absolute": (lambda folder: write(folder, "1.png,a", "/etc/passwd,b"), "line 3: .*outside of"),
    "a link out": (
        lambda folder: [
            (folder.parent / "x.png").write_bytes(encoded(picture(), "PNG")),
            (folder / "link.png").symlink_to(folder.parent / "x.png"),
            write(folder, "1.png,a", "link.png,b"),
        ],
        "line 3: link.png lies outside of",
    ),
    "a folder": (lambda folder: write(folder, "1.png,a", "sub,b"), "line 3: sub is missing"),
    "a long name": (
        lambda folder: write(folder, "1.png,a", f"{'x' * 5000},b"),
        "line 3: .*cannot be the name of a file",
    ),
    "no name at all": (
        lambda folder: write(folder, "1.png,a", "a\0b.png,b"),
        "line 3: .*cannot be the name of a file",
    ),
    "no caption": (lambda folder: write(folder, "1.png,a", "0.png,"), "line 3: caption is empty"),
    "two splits": (
        lambda folder: (folder / "captions.csv").write_text(
            "file,caption,split\n1.png,a,train\n1.png,b,test"
        ),
        "line 3: 1.png is in split 'test', but in 'train' in captions.csv line 2",
    ),
    "a line twice": (
        lambda folder: write(folder, "1.png,a", "1.png,a"),
        "line 3: repeats file and caption of captions.csv line 2",
    ),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_every_fault_is_named_and_nothing_written(mine: Path, kind: str):
    write(mine, "1.png,a", "0.png,b")
    damage, words = FAULTS[kind]
    damage(mine)
    with pytest.raises(Refusal, match=rf"1 fault in .*on_broken=skip:\n  captions.csv {words}"):
        make(mine, "folder.max_pixels=50000000")
    assert not (mine.parent / "made").exists()


def test_all_faults_are_listed_together_and_counted(mine: Path):
    rows = [*(f"none{number}.png,a boat" for number in range(30)), "0.png,", "1.png"]
    write(mine, *rows)
    with pytest.raises(Refusal, match=r"^32 faults in (?s:.*)… and 12 more$"):
        make(mine)


def test_with_on_broken_skip_broken_pictures_are_left_out_and_listed(
    mine: Path, capsys: pytest.CaptureFixture[str]
):
    (mine / "0.png").write_bytes(b"no picture")
    write(mine, "0.png,a boat", "1.png,a house", "2.png,", "3.png,a tree")
    settings = ["folder.on_broken=skip", "folder.fractions={train: 1, val: 0, test: 0}"]
    data = make(mine, *settings)
    assert sorted(file.name for file in data.files.values()) == ["1.png", "3.png"]
    said = capsys.readouterr().err
    assert "left out for 2 faults:\n  captions.csv line 4: caption is empty" in said
    assert "captions.csv line 2:" in said


def test_pictures_without_captions_are_counted(mine: Path, capsys: pytest.CaptureFixture[str]):
    write(mine, "0.png,a boat", "i1.png,a house", "./sub/deep/s0.png,a tree")
    make(mine, "folder.fractions={train: 1, val: 0, test: 0}")
    assert "9 pictures have no caption and stay out:\n  1.png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["folder.path=null"], "folder.path is not set"),
        (["folder.path=/nowhere"], "folder.path is /nowhere, which is no folder"),
        (["folder.on_broken=ignore"], "folder.on_broken is 'ignore'; it must be stop or skip"),
        (["folder.fractions.train=0.5"], "folder.fractions are .* add up to 1"),
        (["folder.captions=words.csv"], "has no words.csv; .*folder.captions=FILE"),
        (["folder.max_pixels=100"], "12 faults in"),
        (["prepare.source=flickr"], "source is 'flickr'; it must be one of scenes, folder"),
    ],
)
def test_wrong_settings_are_refused(mine: Path, overrides: list[str], words: str):
    with pytest.raises(Refusal, match=words):
        make(mine, *overrides)
    assert not (mine.parent / "made").exists()


def test_a_flag_of_another_source_is_refused(mine: Path):
    with pytest.raises(Refusal, match="--count means nothing to prepare.source=folder"):
        make(mine, count=3)


def test_a_split_without_pictures_is_refused(mine: Path):
    write(mine, "0.png,a boat")
    with pytest.raises(Refusal, match="of 1 pictures none came to .* by folder.fractions"):
        make(mine)


def test_two_caption_files_are_refused(mine: Path):
    (mine / "captions.jsonl").write_text("")
    with pytest.raises(Refusal, match="more than one of captions.csv, captions.jsonl, captions.j"):
        make(mine)
    assert len(make(mine, "folder.captions=captions.csv").files) == 12


@pytest.mark.parametrize("place", ["", "made", ".."])
def test_the_pictures_are_never_replaced_by_their_data_set(mine: Path, place: str):
    before = sorted(mine.rglob("*"))
    with pytest.raises(Refusal, match="neither may lie in the other"):
        make(mine, f"folder.out={mine / place}")
    assert sorted(mine.rglob("*")) == before


def test_a_folder_with_captions_but_no_split_is_not_taken_for_an_older_data_set(mine: Path):
    other = mine.parent / "other"
    other.mkdir()
    (other / "captions.json").write_text("{}")
    with pytest.raises(Refusal, match="other holds something that is no caption data set"):
        make(mine, f"folder.out={other}")
    assert (other / "captions.json").read_text() == "{}"


def test_a_folder_that_is_a_data_set_already_is_refused(mine: Path):
    data = make(mine)
    with pytest.raises(Refusal, match="is a data set already .*features.data="):
        make(data.root, f"folder.out={mine.parent / 'again'}")


def test_a_full_disk_is_refused_before_copying(mine: Path, monkeypatch: pytest.MonkeyPatch):
    usage = shutil._ntuple_diskusage(10**9, 10**9, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(Refusal, match=r"folder.out need 0.20 GB on .* which has 0.00 GB free"):
        make(mine)
    assert not (mine.parent / "made").exists()
