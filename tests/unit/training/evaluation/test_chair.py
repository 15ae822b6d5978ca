"""CHAIR, worked out by hand on four pictures, and objects in captions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from model.refusal import Refusal
from training.data.dataset import CaptionDataset, Picture, write_index
from training.evaluation.scores.chair import Chair
from training.evaluation.scores.objects import COCO_OBJECTS, Objects, plural

REFERENCES = {
    11: ["a man rides a horse", "someone on a horse"],
    12: ["a kitten on a sofa"],
    13: ["two people eat hot dogs"],
    14: ["an empty street"],
}
#: What the annotators marked: image -> categories.
MARKED = {11: [1, 19], 12: [17], 13: [1], 14: []}
CATEGORIES = {1: "person", 17: "cat", 18: "dog", 19: "horse", 58: "hot dog", 63: "couch", 3: "car"}


def instances(file: Path, **changes: Any) -> Path:
    """An instances file of the four pictures, as COCO writes it."""
    content: dict[str, Any] = {
        "info": {"description": "COCO 2014 Dataset"},
        "images": [{"id": i, "file_name": f"COCO_val2014_{i:012d}.jpg"} for i in MARKED],
        "annotations": [
            {"id": 100 * i + c, "image_id": i, "category_id": c, "segmentation": [[1.5, 2.0]]}
            for i, own in MARKED.items()
            for c in own
        ],
        "categories": [{"id": i, "name": name, "supercategory": "x"} for i, name
                       in CATEGORIES.items()],
    }  # fmt: skip
    file.write_text(json.dumps({**content, **changes}))
    return file


@pytest.fixture
def dataset(tmp_path: Path) -> CaptionDataset:
    folder = tmp_path / "coco"
    folder.mkdir()
    names = {i: f"val2014/COCO_val2014_{i:012d}.jpg" for i in REFERENCES}
    pictures = [Picture(i, names[i], own, "test") for i, own in REFERENCES.items()]
    write_index(folder, "four pictures", pictures)
    return CaptionDataset.load(folder)


def test_a_worked_example(dataset: CaptionDataset, tmp_path: Path):
    chair = Chair(dataset, instances(tmp_path / "instances.json"))
    generated = {
        # person and horse are marked; the dog is neither marked nor in a reference.
        11: "a woman and two dogs beside a horse",
        # cat is marked ("kitten" in the reference too); couch is in the reference only; no mistake.
        12: "a cat on a couch",
        # person twice (marked); the hot dog is in a reference, and is no dog; the car is false.
        13: "people and a child with a hot dog in a car",
        # no object is in the picture: two mentions of a car are false.
        14: "a car behind cars",
    }
    figures, false, note = chair.measure(generated)
    # Mentions: 3 + 2 + 4 + 2 = 11. False: 1 + 0 + 1 + 2 = 4. Captions with one: 3 of 4.
    assert figures == {"CHAIR_i": pytest.approx(4 / 11), "CHAIR_s": pytest.approx(3 / 4)}
    assert false == {11: ["dog"], 12: [], 13: ["car"], 14: ["car", "car"]}
    assert "4 of 11 mentions of objects are of none in the picture, in 3 of 4 captions" in note
    # Without a mention there is no share of mentions.
    assert chair.measure({14: "a grey street"})[0] == {"CHAIR_s": 0.0}


def test_a_list_of_one_s_own(dataset: CaptionDataset, tmp_path: Path):
    own = tmp_path / "synonyms.txt"
    lines = [*CATEGORIES.values()]
    lines[0] += ", lady, someone, kitten"
    lines[1] += ", kitten"
    own.write_text("\n".join(lines) + "\n\n")
    chair = Chair(dataset, instances(tmp_path / "instances.json"), own)
    # "woman" is no synonym here, "ladies" is; "kitten" stands twice, and the last line has it.
    figures, false, note = chair.measure({12: "a woman, ladies and kittens"})
    assert (figures["CHAIR_i"], false[12]) == (0.5, ["person"])
    assert "gives 1 phrases to several objects, first 'kitten'" in note


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"categories": []}, "has no categories or no images; CHAIR needs the objects"),
        ({"images": [{"id": 11}]}, "3 of 4 pictures of .* are not in .*, first image id 12"),
        (
            {"images": [{"id": i, "file_name": f"{i + 1}.jpg"} for i in MARKED]},
            "4 of 4 pictures of .* have another file name",
        ),
        ({"categories": [{"id": 1, "name": "unicorn"}]}, "1 categories of .* first 'unicorn'"),
        ({"annotations": [{"image_id": 11, "category_id": 9}]}, "is no instances file .KeyError"),
        ({"annotations": [{"image_id": 11, "caption": "a"}]}, "is no instances file .KeyError"),
    ],
)
def test_what_is_no_instances_file_of_these_pictures_is_refused(
    changes: dict[str, Any], words: str, dataset: CaptionDataset, tmp_path: Path
):
    file = instances(tmp_path / "instances.json", **changes)
    with pytest.raises(Refusal, match=words):
        Chair(dataset, file).measure(dict.fromkeys(REFERENCES, "a dog"))


def test_pictures_of_2017_have_the_names_of_2014_but_for_their_beginning(
    dataset: CaptionDataset, tmp_path: Path
):
    renamed = [{"id": i, "file_name": f"{i:012d}.jpg"} for i in MARKED]
    Chair(dataset, instances(tmp_path / "instances.json", images=renamed)).check(REFERENCES)


def test_a_missing_or_broken_file_is_refused(dataset: CaptionDataset, tmp_path: Path):
    with pytest.raises(Refusal, match="is missing; CHAIR needs"):
        Chair(dataset, tmp_path / "none.json")
    (tmp_path / "broken.json").write_text('{"images": [')
    with pytest.raises(Refusal, match="is not JSON"):
        Chair(dataset, tmp_path / "broken.json")
    for content in (b"\xff\xfe", b" \n,\n"):
        (tmp_path / "own.txt").write_bytes(content)
        with pytest.raises(Refusal, match=r"own.txt (is not UTF-8|has no class)"):
            Objects(tmp_path / "own.txt")


@pytest.mark.parametrize(
    ("caption", "mentioned"),
    [
        ("Two MEN, three women and children.", ["person", "person", "person"]),
        ("a hot-dog beside dogs", ["hot dog", "dog"]),
        ("knives, wine glasses and scissors", ["knife", "wine glass", "scissors"]),
        ("buses, bicycles and a fire truck", ["bus", "bicycle", "truck"]),
        ("a man on a toilet seat", ["person", "toilet"]),
        ("a seat", ["chair"]),
        ("a baby elephant with a baby", ["elephant", "person"]),
        ("adult zebras", ["zebra"]),
        ("a passenger train at a train station", ["train"]),
        ("teddy bears near a polar bear", ["teddy bear", "bear"]),
        ("a stop sign and stop lights", ["stop sign", "traffic light"]),
        ("a tie, a bow tie, skis, sheep and geese", ["tie", "tie", "skis", "sheep", "bird"]),
        ("a man's cell phones", ["person", "cell phone"]),
        ("carpet, category and bustling", []),
        ("", []),
    ],
)
def test_mentions(caption: str, mentioned: list[str]):
    assert list(Objects().mentions(caption)) == mentioned


def test_the_list_of_coco_has_its_80_classes_each_once():
    objects = Objects(COCO_OBJECTS)
    assert len(objects.classes) == len(set(objects.classes)) == 80
    assert objects.twice == []
    assert all(list(objects.mentions(name)) == [name] for name in objects.classes)


def test_plurals():
    words = {"cat": "cats", "bus": "buses", "box": "boxes", "puppy": "puppies", "boy": "boys"}
    words |= {"couch": "couches", "man": "men", "mouse": "mice", "knife": "knives"}
    assert {word: plural(word) for word in words} == words
