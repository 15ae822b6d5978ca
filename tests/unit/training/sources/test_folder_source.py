"""A folder of pictures becomes a data set, or all its faults are listed and nothing is written."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from model.refusal import Refusal
from tests.pictures import broken, encoded, picture
from training.config import load_config
from training.data.dataset import CaptionDataset
from training.prepare import prepare


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Twelve pictures in three places, two captions each, in a CSV file with splits."""
    folder = tmp_path / "mine"
    for place in ("", "images", "sub/deep"):
        (folder / place).mkdir(parents=True, exist_ok=True)
        for number in range(4):
            (folder / place / f"{place[:1]}{number}.png").write_bytes(encoded(picture(), "PNG"))
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
        assert file.read_bytes() == encoded(picture(), "PNG")
        said = file.relative_to(data.root / "images").as_posix()
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
        shutil.copy(mine / "0.png", mine / f"n{number}.png")
    write(mine, *(f"n{number}.png,a boat" for number in range(300)))
    few = make(mine)
    write(mine, *(f"n{number}.png,a boat" for number in reversed(range(400))))
    many = make(mine)

    def split_of(data: CaptionDataset) -> dict[str, str]:
        return {data.files[i].name: name for name, ids in data.splits.items() for i in ids}

    assert split_of(few).items() <= split_of(many).items()
    counts = Counter(split_of(many).values())
    assert 290 <= counts["train"] <= 350
    assert 20 <= counts["val"] <= 65
    assert 20 <= counts["test"] <= 65
    assert split_of(make(mine, seed=2)) != split_of(many)


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
