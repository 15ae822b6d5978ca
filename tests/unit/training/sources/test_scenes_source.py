"""The source `scenes` writes a complete, reproducible data set, or nothing."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from tests import ROOT
from training.data.dataset import CaptionDataset
from training.scenes import Scene, write_captions


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "training.prepare", *arguments, "scenes.sides=[64,96]"]


def prepare(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), cwd=ROOT, text=True, capture_output=True, check=False
    )


def digest(folder: Path) -> str:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    total = hashlib.sha256()
    for file in files:
        total.update(f"{file.relative_to(folder)} {file.stat().st_size}\n".encode())
        total.update(file.read_bytes())
    return total.hexdigest()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prepared") / "scenes"
    done = prepare("--seed", "5", "--count", "100", "--out", str(out))
    assert done.returncode == 0, done.stderr
    return out


def test_it_writes_a_data_set_with_the_contents_of_each_scene(made: Path) -> None:
    data = CaptionDataset.load(made)
    assert {split: len(ids) for split, ids in data.splits.items()} == {
        "train": 80, "val": 4, "test": 10, "compositional": 6,
    }  # fmt: skip
    assert sorted(data.files) == sorted(image for ids in data.splits.values() for image in ids)
    truth = json.loads((made / "truth.json").read_text())
    sizes = {i["id"]: i for i in json.loads((made / "captions.json").read_text())["images"]}
    formats = set()
    for image, file in data.files.items():
        with Image.open(file) as picture:
            assert picture.size == (sizes[image]["width"], sizes[image]["height"])
            assert picture.mode == "RGB"
            formats.add(picture.format)
        scene = Scene.from_dict(truth[str(image)])
        assert data.captions[image] == write_captions(scene)
    assert formats == {"JPEG", "PNG"}
    assert len({(size["width"], size["height"]) for size in sizes.values()}) > 20
    annotations = json.loads((made / "captions.json").read_text())["annotations"]
    assert len({annotation["id"] for annotation in annotations}) == len(annotations) == 500


def test_every_thing_has_its_box_in_pixels(made: Path) -> None:
    truth = json.loads((made / "truth.json").read_text())
    coco = json.loads((made / "instances.json").read_text())
    names = {category["id"]: category["name"] for category in coco["categories"]}
    sizes = {image["id"]: (image["width"], image["height"]) for image in coco["images"]}
    boxes: dict[int, list[tuple[str, str]]] = {}
    for instance in coco["annotations"]:
        x, y, w, h = instance["bbox"]
        width, height = sizes[instance["image_id"]]
        side = min(width, height)
        assert (width - side) / 2 <= x < x + w <= (width + side) / 2
        assert (height - side) / 2 <= y < y + h <= (height + side) / 2
        (colour,) = instance["attributes"]
        boxes.setdefault(instance["image_id"], []).append((names[instance["category_id"]], colour))
    for image, scene in truth.items():
        assert sorted(boxes[int(image)]) == sorted(
            (group["thing"], group["colour"]) for group in scene["groups"] for _ in group["boxes"]
        )


def test_a_seed_gives_the_same_files_and_another_one_others(made: Path, tmp_path: Path) -> None:
    again, other = tmp_path / "again", tmp_path / "other"
    assert prepare("--seed", "5", "--count", "100", "--out", str(again)).returncode == 0
    assert digest(again) == digest(made)
    assert prepare("--seed", "6", "--count", "100", "--out", str(other)).returncode == 0
    truths = [json.loads((folder / "truth.json").read_text()) for folder in (made, other)]
    seeds = [{scene["seed"] for scene in truth.values()} for truth in truths]
    assert not seeds[0] & seeds[1]


def test_a_killed_run_leaves_no_incomplete_data_set(tmp_path: Path) -> None:
    out = tmp_path / "scenes"
    running = subprocess.Popen(
        command("--count", "20000", "--out", str(out)),
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    partial = tmp_path / "scenes.partial" / "new" / "images"
    deadline = time.monotonic() + 60
    while not (partial.exists() and any(partial.iterdir())):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert not out.exists()
    done = prepare("--count", "40", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert len(list((out / "images").iterdir())) == 40
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--count", "0"), "scenes.count is 0"),
        (("scenes.fractions.train=0.5",), "add up to 1"),
        (("scenes.sides=[500,100]",), "scenes.sides"),
    ],
)
def test_wrong_settings_are_one_line(
    arguments: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    out = tmp_path / "scenes"
    call = [sys.executable, "-m", "training.prepare", *arguments, "--out", str(out)]
    done = subprocess.run(call, cwd=ROOT, text=True, capture_output=True, check=False)
    assert done.returncode == 1
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not out.exists()


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    mine = tmp_path / "thesis.txt"
    mine.write_text("years of work")
    done = prepare("--count", "10", "--out", str(tmp_path))
    assert done.returncode == 1
    assert str(tmp_path) in done.stderr
    assert mine.read_text() == "years of work"
