"""Files of captions in COCO's form: read whole, or refused with every count."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.refusal import Refusal
from training.data.dataset import CaptionDataset, Picture, write_index
from training.evaluation.results_file import read_results, write_results

SPLITS = {1: "train", 2: "test", 3: "test", 4: "test", 5: "odd"}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> CaptionDataset:
    folder = tmp_path_factory.mktemp("data")
    write_index(folder, "", [Picture(i, f"{i}.jpg", ["a"], s) for i, s in SPLITS.items()])
    return CaptionDataset.load(folder)


def entries(file: Path, *pairs: tuple[Any, Any]) -> Path:
    file.write_text(json.dumps([{"image_id": i, "caption": text, "id": 7} for i, text in pairs]))
    return file


def test_what_is_written_is_read_again(dataset: CaptionDataset, tmp_path: Path):
    captions = {2: "a dog", 3: 'an "owl" — ein Floß', 4: "犬"}
    write_results(tmp_path / "own.json", captions)
    assert json.loads((tmp_path / "own.json").read_text()) == [
        {"image_id": i, "caption": text} for i, text in captions.items()
    ]
    found = read_results(tmp_path / "own.json", dataset, ["test"])
    assert found.splits == {"test": captions}
    assert found.notes == []


def test_ids_are_numbers_or_their_digits(dataset: CaptionDataset, tmp_path: Path):
    file = entries(tmp_path / "own.json", ("000000000004", "d"), (2.0, "b"), (3, "c"))
    assert read_results(file, dataset, ["test"]).splits == {"test": {2: "b", 3: "c", 4: "d"}}


def test_every_fault_is_counted_in_one_refusal(dataset: CaptionDataset, tmp_path: Path):
    pairs = [(2, "a"), ("2", "b"), (2, "a"), (4, " \n"), (98, "a"), (99, "a")]
    file = entries(tmp_path / "own.json", *pairs)
    # Image 2 has three captions; image 3 has none; 98 and 99 do not exist; that of 4 is blank.
    with pytest.raises(Refusal) as error:
        read_results(file, dataset, ["test"])
    said = str(error.value)
    for words in (
        "2 ids are not in",
        "first 98",
        "1 pictures of test have no caption, first 3",
        "1 ids have 3 captions together, first 2",
        "1 captions are empty (evaluate.allow_empty=true scores them, with 0), first 4",
    ):
        assert words in said


def test_empty_captions_are_scored_on_request(dataset: CaptionDataset, tmp_path: Path):
    file = entries(tmp_path / "own.json", (2, ""), (3, "c"), (4, "d"))
    with pytest.raises(Refusal, match="1 captions are empty"):
        read_results(file, dataset, ["test"])
    found = read_results(file, dataset, ["test"], empty=True)
    assert found.splits["test"][2] == ""
    assert found.notes == ["1 captions are empty; every score of words gives them 0."]


def test_what_is_not_scored_is_said(dataset: CaptionDataset, tmp_path: Path):
    file = entries(tmp_path / "own.json", (1, "a"), (2, "b"), (3, "c"), (4, "d"))
    found = read_results(file, dataset, ["test", "odd"])
    assert list(found.splits) == ["test"]
    assert found.notes == [
        "odd left out: own.json has none of its pictures.",
        "1 captions of own.json are of other splits and are not scored.",
    ]
    with pytest.raises(Refusal, match="has no picture of odd .*; name its split"):
        read_results(file, dataset, ["odd"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not JSON"),
        ('{"2": "a"}', "holds a dict; it must be a list"),
        ("[]", "has no picture of test"),
        ('["a"]', "entry 1 has no image_id or no caption"),
        ('[{"image_id": 2}]', "entry 1 has no image_id or no caption"),
        ('[{"image_id": 2, "caption": null}]', "the caption of entry 1 is null; it must be text"),
        ('[{"image_id": true, "caption": "a"}]', "image_id of entry 1 is true"),
        ('[{"image_id": 2.5, "caption": "a"}]', r"image_id of entry 1 is 2\.5"),
        ('[{"image_id": "2a", "caption": "a"}]', 'image_id of entry 1 is "2a"'),
        ('[{"image_id": 9223372036854775808, "caption": "a"}]', "at most 64 bits"),
        ('[{"image_id": NaN, "caption": "a"}]', "image_id of entry 1 is NaN"),
    ],
)
def test_another_form_is_refused(content: str, words: str, dataset: CaptionDataset, tmp_path: Path):
    (tmp_path / "own.json").write_text(content)
    with pytest.raises(Refusal, match=words):
        read_results(tmp_path / "own.json", dataset, ["test"])


def test_a_missing_file_is_refused(dataset: CaptionDataset, tmp_path: Path):
    with pytest.raises(Refusal, match="is missing; give a file of captions"):
        read_results(tmp_path / "own.json", dataset, ["test"])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["image_id", "caption"]), inner)
    ),
    max_leaves=8,
)


@given(st.lists(st.fixed_dictionaries({"image_id": JSON, "caption": JSON})) | JSON)
def test_whatever_json_it_is_read_or_refused(
    dataset: CaptionDataset, tmp_path_factory: pytest.TempPathFactory, content: Any
):
    file = tmp_path_factory.getbasetemp() / "wild.json"
    file.write_text(json.dumps(content))
    try:
        found = read_results(file, dataset, ["test"])
    except Refusal:
        return
    assert found.splits["test"].keys() == {2, 3, 4}
