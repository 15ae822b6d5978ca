"""Tar shards become a data set that reads pictures from them, or all their faults are listed."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.refusal import Refusal
from tests.pictures import encoded, picture
from training.config import Config, load_config
from training.data.dataset import CaptionDataset
from training.encoding.encode_dataset import encode_dataset
from training.encoding.feature_file import FeatureFile
from training.evaluation.report.page import Section, Shown, write_page
from training.prepare import prepare

PNG = encoded(picture(), "PNG")
ALL_TRAIN = "webdataset.fractions={train: 1, val: 0, test: 0}"


def pack(file: Path, members: list[tuple[str, bytes]]) -> Path:
    file.parent.mkdir(exist_ok=True)
    with tarfile.open(file, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file


def captioned(key: str, text: str) -> list[tuple[str, bytes]]:
    return [(f"{key}.png", PNG), (f"{key}.txt", text.encode())]


def make(folder: Path, *overrides: str, shards: str | None = None) -> CaptionDataset:
    out = folder / "made"
    settings = [
        "prepare.source=webdataset",
        f'webdataset.shards="{shards or folder / "shards"}"',
        f"webdataset.out={out}",
        "webdataset.workers=0",
    ]
    prepare(load_config([*settings, *overrides]))
    return CaptionDataset.load(out)


def test_pictures_are_read_in_place_and_captions_in_every_format(tmp_path: Path):
    pictures = [encoded(Image.new("RGB", (9 + n, 9)), "PNG") for n in range(4)]
    members = [
        ("0.png", pictures[0]), ("0.txt", b" a  boat\n"), ("0.cls", b"3"),
        ("deep/1.PNG", pictures[1]), ("deep/1.json", b'{"caption": "a house", "url": "x"}'),
        ("deep/2.json", b'{"captions": ["a tree", "a bird"]}'), ("deep/2.png", pictures[2]),
    ]  # fmt: skip
    pack(tmp_path / "shards" / "00.tar", members)
    long = "x" * 120  # a name that takes a header of its own
    pack(tmp_path / "shards" / "01.tar", [(f"{long}.png", pictures[3]), (f"{long}.txt", b"a cat")])
    data = make(tmp_path, ALL_TRAIN)
    assert [data.files[i].read_bytes() for i in data.files] == pictures
    said = [["a boat"], ["a house"], ["a tree", "a bird"], ["a cat"]]
    assert [data.captions[i] for i in data.files] == said
    assert {n: list(ids) for n, ids in data.splits.items()} == {"train": [1, 2, 3, 4]}
    assert sorted(path.name for path in data.root.iterdir()) == ["captions.json", "split.json"]


def test_every_stage_treats_them_as_pictures_of_a_folder(
    tiny_run: Config, tiny_scenes: Path, tmp_path: Path
):
    scenes = CaptionDataset.load(tiny_scenes)
    for shard in range(3):
        members = []
        for image_id in list(scenes.files)[shard * 20 : shard * 20 + 20]:
            file, captions = scenes.files[image_id], {"captions": scenes.captions[image_id]}
            members.append((f"{image_id:03d}{file.suffix}", file.read_bytes()))
            members.append((f"{image_id:03d}.json", json.dumps(captions).encode()))
        pack(tmp_path / "shards" / f"{shard:03d}.tar", members)
    data = make(tmp_path, "webdataset.seed=2", shards=f"{tmp_path}/shards/{{000..002}}.tar")
    assert dict(data.captions) == dict(scenes.captions)
    features = dataclasses.replace(
        tiny_run.features, data=str(data.root), out=str(tmp_path / "features"), workers=2
    )
    assert encode_dataset(features) == 0
    expected = FeatureFile(tiny_run.features.out)
    np.testing.assert_array_equal(FeatureFile(features.out).features[:], expected.features[:])
    shown = Shown(data.files[21], "a caption", ["a reference"], 1.0)
    write_page(tmp_path / "page.html", "page", {"test": Section({}, [shown])})
    assert "data:image/jpeg" in (tmp_path / "page.html").read_text()
    with (tmp_path / "shards" / "001.tar").open("ab") as tar:
        tar.write(bytes(512))
    with pytest.raises(Refusal, match=r"20 of 60 .*skip(?s:.*)001.tar: 021.*has .* bytes, it had"):
        encode_dataset(dataclasses.replace(features, out=str(tmp_path / "again")))


FAULTS: dict[str, tuple[list[tuple[str, bytes]], str]] = {
    "no caption": ([("1.png", PNG)], "1: has no caption"),
    "no picture": ([("1.txt", b"a boat")], "1: has no pictures"),
    "two pictures": (
        [*captioned("1", "a boat"), ("1.jpg", b"")],
        r"1: has 2 pictures \(.png, .jpg\); it must have one; choose with webdataset.picture=",
    ),
    "empty caption": (captioned("1", " "), "1: caption is empty"),
    "not UTF-8": ([("1.png", PNG), ("1.txt", b"\xff")], "1: .txt is not UTF-8"),
    "no JSON": ([("1.png", PNG), ("1.json", b"{")], "1: .json is not JSON"),
    "no caption in JSON": ([("1.png", PNG), ("1.json", b"[]")], "1: .json must have one of"),
    "no list": ([("1.png", PNG), ("1.json", b'{"captions": 3}')], "1: captions must be a list"),
    "a missing value": (captioned("1", "nan"), "1: caption is 'nan', which stands for"),
    "duplicate key": (
        [*captioned("0", "a"), *captioned("1", "b"), *captioned("0", "c")],
        "0: another sample of the shard has this key",
    ),
    "broken picture": ([("1.png", PNG[:50]), ("1.txt", b"a boat")], "1.png: .*damaged"),
    "huge caption": ([("1.png", PNG), ("1.txt", b"x" * 1_000_001)], "1: .txt has 1000001 bytes"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_every_fault_is_named_or_left_out(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
):
    members, words = FAULTS[kind]
    pack(tmp_path / "shards" / "0.tar", captioned("good", "a house"))
    pack(tmp_path / "shards" / "1.tar", members)
    with pytest.raises(Refusal, match=rf"1 fault in 2 shards; .*skip:\n  .*1.tar: {words}"):
        make(tmp_path, ALL_TRAIN)
    assert not (tmp_path / "made").exists()
    data = make(tmp_path, ALL_TRAIN, "webdataset.on_broken=skip")
    assert data.captions[1] == ["a house"]
    assert "left out for 1 fault:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "captions", "faults"),
    [
        ("1.txt", "a boat\n a  cat \r\n\n", ["a boat", "a cat"], []),
        ("1.txt", "a boat\na boat\na cat", ["a boat", "a cat"], ["the same caption twice"]),
        ("1.txt", "fish &amp; chips\nnan", ["fish & chips"], ["'nan', which stands for"]),
        ("1.txt", "['a dog', 'a cat']", ["a dog", "a cat"], []),
        ("1.json", '{"captions": ["a", " a", ""]}', ["a"], ["same caption twice", "is empty"]),
    ],
)
def test_a_faulty_caption_is_left_out_without_the_others(
    tmp_path: Path,
    name: str,
    content: str,
    captions: list[str],
    faults: list[str],
    capsys: pytest.CaptureFixture[str],
):
    pack(tmp_path / "shards" / "0.tar", [("1.png", PNG), (name, content.encode())])
    if faults:
        with pytest.raises(Refusal, match=rf"{len(faults)} faults? in 1 shards"):
            make(tmp_path, ALL_TRAIN)
    data = make(tmp_path, ALL_TRAIN, "webdataset.on_broken=skip")
    assert data.captions == {1: captions}
    said = capsys.readouterr().err
    assert all(fault in said for fault in faults)
    assert ("HTML entities" in said) == ("&amp;" in content)


def test_few_pictures_fill_every_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pictures = [encoded(Image.new("RGB", (9 + n, 9)), "PNG") for n in range(3)]
    members = [
        member
        for n, content in enumerate(pictures)
        for member in ((f"{n}.png", content), (f"{n}.txt", b"a boat"))
    ]
    pack(tmp_path / "shards" / "0.tar", members)
    data = make(tmp_path)
    assert {name: len(ids) for name, ids in data.splits.items()} == {
        "train": 1, "val": 1, "test": 1,
    }  # fmt: skip
    assert "at random, so it gets the nearest one, image" in capsys.readouterr().err


def test_the_same_picture_in_two_splits_is_a_fault(tmp_path: Path):
    pack(tmp_path / "shards" / "0.tar", [m for n in range(60) for m in captioned(str(n), "a")])
    half = "webdataset.fractions={train: 0.5, val: 0.5, test: 0}"
    with pytest.raises(
        Refusal, match=r"has the same bytes as a picture of 0.tar in split '(train|val)'"
    ):
        make(tmp_path, half)


@pytest.mark.parametrize("keep", [512 * 4 + 10, 512 * 5 + 100, 512 * 6, 512 * 7 + 3, 512 * 8])
def test_a_shard_cut_short_is_a_fault_wherever_it_ends(tmp_path: Path, keep: int):
    whole = pack(
        tmp_path / "shards" / "0.tar", [*captioned("0", "a boat"), *captioned("1", "a house")]
    )
    assert whole.stat().st_size > 512 * 8
    whole.write_bytes(whole.read_bytes()[:keep])
    with pytest.raises(Refusal, match=r"0.tar: cut short, damaged or compressed"):
        make(tmp_path, ALL_TRAIN)
    if keep > 512 * 4 + 10:
        data = make(tmp_path, ALL_TRAIN, "webdataset.on_broken=skip")
        assert data.captions[1] == ["a boat"]


@pytest.mark.parametrize(
    "size",
    [
        b"\xff" * 10 + b"\xfe\0",  # base 256: minus 512, which leads back to the same header
        b"\x80" + b"\xff" * 11,  # more than any file has
    ],
)
def test_impossible_sizes_are_a_fault(tmp_path: Path, size: bytes):
    file = pack(
        tmp_path / "shards" / "0.tar", [*captioned("0", "a boat"), *captioned("1", "a cat")]
    )
    data = bytearray(file.read_bytes())
    header = data.index(b"1.png\0")
    data[header + 124 : header + 136] = size
    data[header + 148 : header + 156] = b" " * 8
    data[header + 148 : header + 156] = b"%06o\0 " % sum(data[header : header + 512])
    file.write_bytes(data)
    with pytest.raises(Refusal, match=r"damaged or compressed after [01] \(.*\); give"):
        make(tmp_path, ALL_TRAIN)


def test_names_in_messages_are_escaped_and_cut(tmp_path: Path):
    long, odd = "x" * 5000, "a\nb"
    pack(tmp_path / "shards" / "0.tar", [(f"{long}.png", PNG), (f"{odd}.png", PNG)])
    with pytest.raises(Refusal, match=r"'a\\nb': has no caption") as caught:
        make(tmp_path, ALL_TRAIN)
    assert "x" * 200 + "…: has no caption" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 3


def test_two_pictures_of_one_name_are_a_fault(tmp_path: Path):
    pack(tmp_path / "shards" / "0.tar", [("0.png", PNG), *captioned("0", "a boat")])
    with pytest.raises(Refusal, match=r"0: has two \.png"):
        make(tmp_path, ALL_TRAIN)


def test_more_than_max_shards_are_refused(tmp_path: Path):
    with pytest.raises(Refusal, match="1000000001 tar files; the limit is 1000000"):
        make(tmp_path, ALL_TRAIN, shards=str(tmp_path / "{0..1000000000}.tar"))


def test_a_compressed_shard_is_a_fault(tmp_path: Path):
    whole = pack(tmp_path / "plain.tar", captioned("0", "a boat"))
    (tmp_path / "shards").mkdir()
    shutil.make_archive(str(tmp_path / "packed"), "gztar", tmp_path, whole.name)
    shutil.move(tmp_path / "packed.tar.gz", tmp_path / "shards" / "0.tar")
    with pytest.raises(Refusal, match=r"0.tar: cut short, damaged or compressed .*give a whole"):
        make(tmp_path, ALL_TRAIN)


def test_a_shard_is_in_the_split_of_its_pattern(tmp_path: Path):
    for number, name in enumerate(("train-0", "train-1", "val-0")):
        content = encoded(Image.new("RGB", (9 + number, 9)), "PNG")
        pack(tmp_path / "shards" / f"{name}.tar", [("0.png", content), ("0.txt", name.encode())])
    splits = 'webdataset.splits={train: "train-{0..1}.tar", val: "val-*.tar"}'
    data = make(tmp_path, splits)
    assert {n: list(ids) for n, ids in data.splits.items()} == {"train": [1, 2], "val": [3]}
    for wrong, words in (
        ("{train: 'train-*.tar'}", r"1 tar files match no pattern .*\n  val-0.tar"),
        ("{train: '*.tar', val: 'val-*.tar'}", r"1 tar files .* of two splits; .*\n  val-0.tar"),
        ("{train: '*.tar', test: 'test-*.tar'}", "no tar file of 3 matches test: test-"),
    ):
        with pytest.raises(Refusal, match=words):
            make(tmp_path, f"webdataset.splits={wrong}")


def test_dots_in_keys_and_one_without_a_caption(tmp_path: Path):
    members = [("v1.0.png", PNG), ("v1.1.png", PNG), ("v1.1.txt", b"a boat"), ("v1.cls", b"3")]
    pack(tmp_path / "shards" / "0.tar", members)
    with pytest.raises(Refusal, match=r"1 fault in 1 shards(?s:.*)0.tar: v1.0: has no caption"):
        make(tmp_path, ALL_TRAIN)
    data = make(tmp_path, ALL_TRAIN, "webdataset.on_broken=skip")
    assert data.captions == {1: ["a boat"]}


@pytest.mark.parametrize(
    ("shards", "overrides", "words"),
    [
        ("{0..3}.tar", [], r"2 of 4 tar files are missing\n  .*2.tar\n"),
        ("{3..0}.tar", [], "no of 0 tar files there"),
        ("none", [], "1 of 1 tar files are missing"),
        ("{0..1}.tar", ["webdataset.on_broken=no"], "on_broken is 'no'; it must be stop or skip"),
        ("{0..1}.tar", ["webdataset.fractions.val=2"], "webdataset.fractions are .* add up to 1"),
        ("{0..1}.tar", [], "no picture of .* came to val and test by webdataset.fractions"),
        ("{0..1}.tar", ["webdataset.shards=null"], "webdataset.shards is not set"),
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, shards: str, overrides: list[str], words: str):
    for number in range(2):
        pack(tmp_path / f"{number}.tar", captioned("0", "a boat"))
    with pytest.raises(Refusal, match=words):
        make(tmp_path, *overrides, shards=str(tmp_path / shards))
    assert not (tmp_path / "made").exists()
