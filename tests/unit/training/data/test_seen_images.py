"""Pictures of the training are recognised by their bytes, under any name and in any data set."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from model.refusal import Refusal
from training.data.dataset import CaptionDataset
from training.data.seen_images import FILE, count_seen, find_seen, save_seen


def made(folder: Path, pictures: dict[int, bytes], noted: bool) -> CaptionDataset:
    """A data set of these pictures; `noted`: captions.json has their SHA-256."""
    (folder / "images").mkdir(parents=True)
    images = []
    for image_id, content in pictures.items():
        (folder / "images" / f"{image_id}.jpg").write_bytes(content)
        image = {"id": image_id, "file_name": f"{image_id}.jpg"}
        images.append(image | ({"sha256": hashlib.sha256(content).hexdigest()} if noted else {}))
    (folder / "captions.json").write_text(json.dumps({"images": images, "annotations": []}))
    (folder / "split.json").write_text(json.dumps({"train": list(pictures)}))
    return CaptionDataset.load(folder)


@pytest.mark.parametrize("noted", [(True, True), (True, False), (False, True)])
def test_pictures_are_found_again_in_another_data_set(tmp_path: Path, noted: tuple[bool, bool]):
    trained = made(tmp_path / "a", {1: b"one", 2: b"two", 3: b"three"}, noted[0])
    other = made(tmp_path / "b", {7: b"two", 8: b"three", 9: b"four"}, noted[1])
    assert count_seen(tmp_path, other, [7, 8, 9]) is None
    save_seen(tmp_path, find_seen(trained, {"train": [1, 2], "val": [3]}))
    assert count_seen(tmp_path, other, [7, 8, 9]) == {"train": 1, "val": 1}
    assert count_seen(tmp_path, other, [9]) == {"train": 0, "val": 0}
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == [FILE]


def test_pictures_that_cannot_be_read_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    data = made(tmp_path / "a", {1: b"one", 2: b"two"}, noted=False)
    (data.root / "images" / "2.jpg").unlink()
    assert len(find_seen(data, {"train": [1, 2]})["train"]) == 1
    assert "1 of 2 pictures of split 'train' cannot be read" in capsys.readouterr().err


def test_a_damaged_record_is_refused(tmp_path: Path):
    data = made(tmp_path / "a", {1: b"one"}, noted=True)
    (tmp_path / FILE).write_bytes(b"no tensors")
    with pytest.raises(Refusal, match=f"{FILE} is damaged .*; delete it, or train again"):
        count_seen(tmp_path, data, [1])
