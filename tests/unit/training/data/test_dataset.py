"""The index of a caption data set: read completely, or refused with the file and the reason."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from model.refusal import Refusal
from training.data.dataset import CaptionDataset
from training.data.json_members import CHUNK

COCO: dict[str, Any] = {
    "info": {"description": "two pictures"},
    "images": [
        {"id": 7, "file_name": "a.jpg", "width": 3, "height": 2},
        {"id": 3, "file_name": "sub/b.png", "width": 3, "height": 2},
    ],
    "annotations": [
        {"id": 1, "image_id": 3, "caption": "a house"},
        {"id": 2, "image_id": 7, "caption": "a boat"},
        {"id": 3, "image_id": 3, "caption": "a small house"},
    ],
}
SPLITS: dict[str, Any] = {"train": [7], "val": [3], "test": []}


def write(folder: Path, coco: object = COCO, splits: object = SPLITS) -> Path:
    (folder / "captions.json").write_text(json.dumps(coco))
    (folder / "split.json").write_text(json.dumps(splits))
    return folder


def test_captions_and_files_are_found_by_image_id(tmp_path: Path):
    data = CaptionDataset.load(write(tmp_path))
    assert data.files == {
        7: tmp_path / "images" / "a.jpg",
        3: tmp_path / "images" / "sub" / "b.png",
    }
    assert data.captions == {7: ["a boat"], 3: ["a house", "a small house"]}
    assert list(data.ids("train")) == [7]


@pytest.mark.parametrize("split", ["test", "dev"])
def test_an_empty_or_missing_split_is_refused_with_a_list_of_the_splits(tmp_path: Path, split: str):
    data = CaptionDataset.load(write(tmp_path))
    with pytest.raises(Refusal, match=rf"split '{split}'; it has: train \(1\), val \(1\)"):
        data.ids(split)


@pytest.mark.parametrize("name", ["captions.json", "split.json"])
def test_a_missing_file_says_how_to_make_one(tmp_path: Path, name: str):
    (write(tmp_path) / name).unlink()
    with pytest.raises(Refusal, match=rf"{name} is missing; .*python -m training.prepare"):
        CaptionDataset.load(tmp_path)


@pytest.mark.parametrize("name", ["captions.json", "split.json"])
@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe"])
def test_a_damaged_file_is_refused(tmp_path: Path, name: str, content: bytes):
    (write(tmp_path) / name).write_bytes(content)
    with pytest.raises(Refusal, match=f"{name} is not JSON"):
        CaptionDataset.load(tmp_path)


@pytest.mark.parametrize(
    ("coco", "words"),
    [
        ([], "is not COCO captions"),
        ({"images": []}, "is not COCO captions: missing or unknown 'annotations'"),
        ({**COCO, "images": [{"id": 3}]}, "is not COCO captions: missing or unknown 'file_name'"),
        (
            {**COCO, "annotations": [{"image_id": 9, "caption": "a"}]},
            "is not COCO captions: missing or unknown 9",
        ),
        ({**COCO, "images": COCO["images"] * 2}, "names image 3 more than once"),
        (
            {**COCO, "annotations": [{"image_id": 3, "caption": None}]},
            "image 3 has a caption that is no text",
        ),
        (
            {**COCO, "annotations": [{"image_id": 3, "caption": "\ud83d"}]},
            "is not COCO captions: .*surrogates not allowed",
        ),
        ({**COCO, "images": [{"id": "3", "file_name": "a"}]}, "is not COCO captions: "),
        ({**COCO, "images": COCO["annotations"]}, "is not COCO captions: "),
    ],
)
def test_what_is_not_coco_captions_is_refused(tmp_path: Path, coco: object, words: str):
    with pytest.raises(Refusal, match=words):
        CaptionDataset.load(write(tmp_path, coco))


def test_a_split_of_unknown_images_is_refused(tmp_path: Path):
    splits = {"train": [7], "val": [3, 4, 5]}
    with pytest.raises(Refusal, match="split 'val' names 2 images that captions.json lacks, .* 4"):
        CaptionDataset.load(write(tmp_path, splits=splits))


@pytest.mark.parametrize(
    ("splits", "words"),
    [
        ({"train": [7, 3], "test": [3]}, "1 images more than once, first 3 in train and test; an"),
        ({"train": [7, 3, 7, 3]}, "2 images more than once, first 3 in train and train"),
    ],
)
def test_overlapping_splits_are_refused(tmp_path: Path, splits: object, words: str):
    with pytest.raises(Refusal, match=f"split.json names {words}"):
        CaptionDataset.load(write(tmp_path, splits=splits))


@pytest.mark.parametrize(
    ("name", "expected"), [("Train", "train"), ("validation", "val"), ("dev", "val")]
)
def test_another_word_for_a_split_is_refused(tmp_path: Path, name: str, expected: str):
    with pytest.raises(Refusal, match=rf"split '{name}' must be called '{expected}' here; rename"):
        CaptionDataset.load(write(tmp_path, splits={name: [7]}))


def test_digests_are_those_of_the_files_whether_noted_or_not(tmp_path: Path):
    contents = {7: b"seven", 3: b"three"}
    hashes = {i: hashlib.sha256(content).hexdigest() for i, content in contents.items()}
    images = [{**image, "sha256": hashes[7]} if image["id"] == 7 else image
              for image in COCO["images"]]  # fmt: skip
    data = CaptionDataset.load(write(tmp_path, {**COCO, "images": images}))
    assert data.files.digests([3]).tolist() == [-1]  # there is no such file
    (tmp_path / "images" / "sub").mkdir(parents=True)
    (tmp_path / "images" / "sub" / "b.png").write_bytes(contents[3])
    assert data.files.digests([3, 7]).tolist() == [int(hashes[i], 16) >> 193 for i in (3, 7)]


@pytest.mark.parametrize("sha256", ["ab", "x" * 64, 3])
def test_a_sha256_that_is_none_is_refused(tmp_path: Path, sha256: object):
    images = [{**image, "sha256": sha256} for image in COCO["images"]]
    with pytest.raises(Refusal, match="is not COCO captions: "):
        CaptionDataset.load(write(tmp_path, {**COCO, "images": images}))


def test_captions_take_less_memory_than_their_own_bytes_while_and_after_they_are_read(
    tmp_path: Path,
):
    texts = [f"caption number {number} of a picture" for number in range(20_000)]
    coco = {
        "images": [{"id": 9 * n, "file_name": f"{n:06d}.jpg"} for n in range(4_000)],
        "annotations": [{"image_id": 9 * (n % 4_000), "caption": t} for n, t in enumerate(texts)],
    }
    write(tmp_path, coco, {"train": [0]})
    tracemalloc.start()
    data = CaptionDataset.load(tmp_path)
    kept, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    own = sum(map(len, texts))
    assert kept < 0.9 * own
    assert most < kept + 8 * CHUNK  # the file is six times as large as a chunk
    assert data.captions[9 * 3_999] == texts[3_999::4_000]
    assert data.files[9 * 3_999].name == "003999.jpg"
    assert len(data.files) == len(data.captions) == 4_000


@pytest.mark.parametrize("splits", [[1, 2], {"train": 7}, "train", {"train": ["7"]}])
def test_splits_that_are_not_lists_of_ids_by_name_are_refused(tmp_path: Path, splits: object):
    with pytest.raises(Refusal, match=r"split.json must hold a list of image ids for each name"):
        CaptionDataset.load(write(tmp_path, splits=splits))
