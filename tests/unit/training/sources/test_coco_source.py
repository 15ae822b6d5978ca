"""COCO, from a small local server with the same files, becomes a data set or is refused."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model.refusal import Refusal
from tests import ROOT
from tests.file_server import FileServer, file_server
from training.config import load_config
from training.data.dataset import CaptionDataset
from training.prepare import prepare

SPLITS = {"train": 5, "restval": 3, "val": 2, "test": 2}


def picture_bytes(number: int) -> bytes:
    """No picture, but nobody looks; it does not shrink in an archive."""
    return random.Random(number).randbytes(30_000)


def karpathy() -> dict[str, Any]:
    """dataset_coco.json: train comes from train2014, the others from val2014."""
    images = []
    for number, split in enumerate((s for s, count in SPLITS.items() for _ in range(count)), 1):
        place = "train2014" if split == "train" else "val2014"
        images.append(
            {
                "filepath": place,
                "sentids": [10 * number, 10 * number + 1],
                "filename": f"COCO_{place}_{number * 37:012d}.jpg",
                "imgid": number - 1,
                "split": split,
                "sentences": [
                    {
                        "tokens": ["a", "boat", str(number)],
                        "raw": f"A boat {number}.{end}",
                        "imgid": number - 1,
                        "sentid": 10 * number,
                    }
                    for end in ("", " \n")
                ],
                "cocoid": number * 37,
            }
        )
    return {"images": images, "dataset": "coco"}


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def serve_coco(server: FileServer, index: object = None) -> None:
    index = index or karpathy()
    captions = {"dataset_flickr8k.json": b"{}", "dataset_coco.json": json.dumps(index).encode()}
    server.files["/people/caption_datasets.zip"] = zipped(captions)
    images = karpathy()["images"]
    for place in ("train2014", "val2014"):
        members = {f"{place}/": b""} | {
            f"{place}/{image['filename']}": picture_bytes(image["cocoid"])
            for image in images
            if image["filepath"] == place
        }
        server.files[f"/zips/{place}.zip"] = zipped(members)
    server.etags = {path: f'"{path}"' for path in server.files}


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as state:
        serve_coco(state)
        yield state


def overrides(server: FileServer, folder: Path, *more: str) -> list[str]:
    return [
        "prepare.source=coco",
        f"coco.out={folder / 'coco'}",
        f"coco.downloads={folder / 'down'}",
        f"coco.images_url={server.address}/zips/",
        f"coco.captions_url={server.address}/people",
        "coco.sha256={train2014: null, val2014: null, caption_datasets: null}",
        *more,
    ]


def make(server: FileServer, folder: Path, *more: str) -> CaptionDataset:
    prepare(load_config(overrides(server, folder, *more)))
    return CaptionDataset.load(folder / "coco")


def assert_whole(data: CaptionDataset) -> None:
    for image in karpathy()["images"]:
        file = data.root / "images" / image["filepath"] / image["filename"]
        assert data.files[image["cocoid"]] == file
        assert file.read_bytes() == picture_bytes(image["cocoid"])
        number = image["cocoid"] // 37
        assert data.captions[image["cocoid"]] == [f"A boat {number}."] * 2


def test_it_becomes_a_data_set_with_restval_in_train(
    server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    data = make(server, tmp_path)
    assert_whole(data)
    assert {name: len(ids) for name, ids in data.splits.items()} == {
        "train": 8, "val": 2, "test": 2,
    }  # fmt: skip
    assert "coco: 12 pictures, 24 captions: train 8, val 2, test 2" in capsys.readouterr().out


def test_restval_may_stay_a_split_of_its_own(server: FileServer, tmp_path: Path):
    data = make(server, tmp_path, "coco.restval_to_train=false")
    assert {name: len(ids) for name, ids in data.splits.items()} == SPLITS


def test_empty_captions_are_left_out_and_counted(
    server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    index = karpathy()
    index["images"][0]["sentences"] += [{"raw": ""}, {"raw": " \n"}]
    serve_coco(server, index)
    assert_whole(make(server, tmp_path))
    assert "left out 2 empty captions" in capsys.readouterr().err


def test_with_the_archives_in_place_no_network_is_needed(server: FileServer, tmp_path: Path):
    (tmp_path / "down").mkdir()
    for path, content in server.files.items():
        (tmp_path / "down" / Path(path).name).write_bytes(content)
    assert_whole(make(server, tmp_path))
    assert server.asked == []


def test_a_killed_download_resumes_and_ends_byte_equal(server: FileServer, tmp_path: Path):
    members = {
        f"train2014/{image['filename']}": picture_bytes(image["cocoid"])
        for image in karpathy()["images"]
        if image["filepath"] == "train2014"
    }
    members["train2014/padding.jpg"] = random.Random(1).randbytes(8_000_000)
    server.files["/zips/train2014.zip"] = zipped(members)
    part = tmp_path / "down" / "train2014.zip.part"
    server.pause = 0.02
    for at_least in (1_000_000, 4_000_000):
        running = subprocess.Popen(
            [sys.executable, "-m", "training.prepare", *overrides(server, tmp_path)],
            cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while not (part.exists() and part.stat().st_size >= at_least):
            assert running.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        assert not (tmp_path / "coco").exists()
    size = part.stat().st_size
    server.pause, server.asked = 0.0, []
    assert_whole(make(server, tmp_path))
    assert ("GET", "/zips/train2014.zip", f"bytes={size}-") in server.asked
    assert not [path for _, path, _ in server.asked if "caption" in path]  # was here whole
    for path, content in server.files.items():
        assert (tmp_path / "down" / Path(path).name).read_bytes() == content
    assert len(list((tmp_path / "down").iterdir())) == 3
    assert sorted(f.name for f in tmp_path.iterdir()) == ["coco", "down"]


def test_a_kill_while_unpacking_leaves_no_incomplete_data_set(server: FileServer, tmp_path: Path):
    make(server, tmp_path)
    killed = tmp_path / "coco.partial"
    killed.mkdir()
    (killed / "lock").touch()
    (tmp_path / "coco").rename(killed / "new")
    (killed / "new" / "images" / "rest.jpg").write_bytes(b"rest")
    data = make(server, tmp_path)
    assert_whole(data)
    assert not (data.root / "images" / "rest.jpg").exists()
    assert not (tmp_path / "coco.partial").exists()


def test_archives_are_compared_with_the_sha_256_of_the_settings(server: FileServer, tmp_path: Path):
    good = hashlib.sha256(server.files["/zips/val2014.zip"]).hexdigest()
    make(server, tmp_path, f"coco.sha256.val2014='{good}'")
    (tmp_path / "down" / "val2014.zip").write_bytes(b"damaged")
    with pytest.raises(Refusal, match=r"val2014.zip has SHA-256 .*, coco.sha256.val2014 is .*del"):
        make(server, tmp_path, f"coco.sha256.val2014='{good}'")
    (tmp_path / "down" / "val2014.zip").unlink()
    with pytest.raises(Refusal, match="has SHA-256 .*, the settings have abc"):
        make(server, tmp_path, "coco.sha256.val2014=abc")


def test_a_full_disk_is_refused_before_the_first_byte(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    usage = shutil._ntuple_diskusage(10**12, 10**12, 5 * 10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(Refusal, match=r"coco.downloads and coco.out need 0.20 GB on .* has 0.01"):
        make(server, tmp_path)
    assert {method for method, _, _ in server.asked} == {"HEAD"}
    assert list(tmp_path.iterdir()) == []


def test_downloads_are_not_replaced_with_the_data_set(server: FileServer, tmp_path: Path):
    with pytest.raises(Refusal, match="coco.downloads is .* inside coco.out, which is replaced"):
        make(server, tmp_path, f"coco.downloads={tmp_path / 'coco' / 'down'}")


def test_a_target_with_something_else_is_refused_before_the_first_byte(
    server: FileServer, tmp_path: Path
):
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco" / "thesis.txt").write_text("years of work")
    with pytest.raises(Refusal, match="coco holds something that is no caption data set"):
        make(server, tmp_path)
    assert server.asked == []


def test_what_a_kill_left_behind_does_not_count_as_used_space(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    make(server, tmp_path)
    killed = tmp_path / "coco.partial" / "new" / "captions.json"
    killed.parents[1].mkdir()
    (killed.parents[1] / "lock").touch()
    (tmp_path / "coco").rename(killed.parent)

    def usage(_: Path) -> object:
        return shutil._ntuple_diskusage(10**12, 0, 0 if killed.exists() else 10**12)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    assert_whole(make(server, tmp_path))


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        ({"filename": "../../../evil.jpg"}, "val2014/../../../evil.jpg is no picture of"),
        ({"filename": "/etc/evil.jpg"}, "is no picture of train2014 or val2014"),
        ({"filename": ".."}, "is no picture of"),
        ({"filepath": ".."}, "is no picture of"),
        ({"filepath": "test2014"}, "is no picture of"),
        ({"filepath": None}, "filepath is null, which is no text"),
        ({"filename": "other.jpg"}, "val2014/other.jpg is not in its archive"),
        ({"filepath": "train2014"}, "is not in its archive"),
        ({"split": "dev"}, "split is 'dev'; it must be one of train, val, test, restval"),
        ({"cocoid": 37}, "cocoid 37 is already used by an image before it"),
        ({"cocoid": "37"}, 'cocoid is "37"; it must be a whole number'),
        ({"sentences": []}, "has no captions"),
        ({"sentences": ["a boat"]}, "sentences must be a list of objects"),
        ({"sentences": [{"raw": " "}]}, "has no captions"),
        ({"sentences": [{"raw": 3}]}, "raw is 3, which is no text"),
        ({"sentences": [{}]}, "raw is null, which is no text"),
    ],
)
def test_every_fault_of_the_index_is_named_and_nothing_written(
    server: FileServer, tmp_path: Path, damage: dict[str, object], fault: str
):
    index = karpathy()
    index["images"][-1] |= damage
    serve_coco(server, index)
    with pytest.raises(Refusal) as caught:
        make(server, tmp_path)
    first, line = str(caught.value).splitlines()
    assert f"1 fault in dataset_coco.json of {tmp_path}/down/caption_datasets.zip" in first
    assert line.startswith("  images[11]: ")
    assert fault in line
    assert [file.name for file in tmp_path.iterdir()] == ["down"]


@pytest.mark.parametrize("index", [[], {"images": {}}, {"pictures": []}])
def test_an_archive_without_the_index_is_refused(server: FileServer, tmp_path: Path, index: object):
    server.files["/people/caption_datasets.zip"] = zipped(
        {"dataset_coco.json": json.dumps(index).encode()}
    )
    with pytest.raises(Refusal, match="caption_datasets.zip holds no dataset_coco.json with a li"):
        make(server, tmp_path)


@pytest.mark.parametrize("damage", ["cut", "byte", "text"])
def test_a_damaged_archive_is_refused_by_name(server: FileServer, tmp_path: Path, damage: str):
    body = bytearray(server.files["/zips/val2014.zip"])
    middle = len(body) // 2
    if damage == "byte":
        body[middle] ^= 0xFF
    server.files["/zips/val2014.zip"] = {
        "cut": bytes(body[:middle]), "byte": bytes(body), "text": b"<html>sign in first</html>",
    }[damage]  # fmt: skip
    with pytest.raises(Refusal, match="val2014.zip is damaged .*; delete it and run the command"):
        make(server, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["down"]


def test_a_missing_archive_is_one_readable_line(server: FileServer, tmp_path: Path):
    del server.files["/zips/val2014.zip"]
    with pytest.raises(Refusal, match="/zips/val2014.zip answers 404 Not Found; correct the addre"):
        make(server, tmp_path)
