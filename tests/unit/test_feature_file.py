"""Feature files: complete or absent, of one encoder, and found by image id."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from model.refusal import Refusal
from tests.models import PREPROCESSING
from training.feature_file import EncoderIdentity, FeatureFile, FeatureWriter, writing_features

ENCODER = EncoderIdentity("some/clip", "ab" * 32, (6,), PREPROCESSING)
IDS = [2, 3, 5, 8, 13]


def features_of(ids: list[int]) -> np.ndarray:
    return np.array([[100 * i + k for k in range(6)] for i in ids], np.float32)


def write(folder: Path, capacity: int = len(IDS)) -> Path:
    with writing_features(folder, ENCODER, capacity) as writer:
        for part in (IDS[:2], IDS[2:]):
            writer.add(part, features_of(part))
    return folder


@pytest.mark.parametrize("capacity", [5, 6, 5000])
def test_what_is_written_is_read_whatever_room_was_kept(tmp_path: Path, capacity: int):
    file = FeatureFile(write(tmp_path / "features", capacity), ENCODER)
    assert isinstance(file.features, np.memmap)
    np.testing.assert_array_equal(file.features, features_of(IDS))
    assert file.ids.tolist() == IDS
    assert file.encoder == ENCODER
    assert sorted(path.name for path in (tmp_path / "features").iterdir()) == [
        "encoder.json",
        "features.npy",
        "ids.npy",
    ]


def test_more_rows_than_are_cut_at_a_time_survive_the_cut(tmp_path: Path):
    ids = list(range(9_000))
    with writing_features(tmp_path / "features", ENCODER, 10_000) as writer:
        writer.add(ids, features_of(ids))
    np.testing.assert_array_equal(FeatureFile(tmp_path / "features").features, features_of(ids))


def test_rows_are_found_by_image_id_and_missing_ones_are_minus_one(tmp_path: Path):
    file = FeatureFile(write(tmp_path / "features"), ENCODER)
    assert file.rows([8, 1, 2, 99, 4, 13]).tolist() == [3, -1, 0, -1, -1, 4]
    assert file.rows([]).tolist() == []


def test_features_of_another_kind_are_refused_with_the_setting(tmp_path: Path):
    patches = dataclasses.replace(ENCODER, shape=(4, 6), kind="patches")
    with pytest.raises(Refusal, match=r"holds pooled features, .* features\.kind=patches"):
        FeatureFile(write(tmp_path / "features"), patches)


def test_a_file_that_does_not_say_its_kind_is_pooled(tmp_path: Path):
    folder = write(tmp_path / "features")
    fields = json.loads((folder / "encoder.json").read_text())
    assert fields.pop("kind") == "pooled"
    (folder / "encoder.json").write_text(json.dumps(fields))
    assert FeatureFile(folder, ENCODER).encoder.kind == "pooled"


@pytest.mark.parametrize(
    "changes",
    [{"sha256": "cd" * 32}, {"preprocessing": dataclasses.replace(PREPROCESSING, crop=False)}],
)
def test_another_encoder_s_file_is_refused(tmp_path: Path, changes: dict):
    other = dataclasses.replace(ENCODER, name="other/clip", **changes)
    with pytest.raises(Refusal, match=r"was made by some/clip .*, not by other/clip .*; encode th"):
        FeatureFile(write(tmp_path / "features"), other)


def test_the_same_encoder_under_another_name_is_accepted(tmp_path: Path):
    moved = dataclasses.replace(ENCODER, name="/elsewhere/clip")
    assert len(FeatureFile(write(tmp_path / "features"), moved).ids) == 5


def test_a_writer_that_failed_leaves_nothing(tmp_path: Path):
    def fail() -> None:
        with writing_features(tmp_path / "features", ENCODER, 5) as writer:
            writer.add(IDS, features_of(IDS))
            raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        fail()
    assert not list(tmp_path.iterdir())


def test_a_writer_that_was_killed_leaves_the_old_file(tmp_path: Path):
    write(tmp_path / "features")
    partial = tmp_path / "features.partial"
    partial.mkdir()
    other = dataclasses.replace(ENCODER, sha256="cd" * 32)
    FeatureWriter(partial, other, 5).add([1], features_of([1]))
    assert FeatureFile(tmp_path / "features", ENCODER).ids.tolist() == IDS
    write(tmp_path / "features", 9)  # and does not stand in the way of the next
    assert [path.name for path in tmp_path.iterdir()] == ["features"]


@pytest.mark.parametrize("name", ["encoder.json", "features.npy", "ids.npy"])
def test_a_missing_part_is_refused_by_name(tmp_path: Path, name: str):
    (write(tmp_path / "features") / name).unlink()
    with pytest.raises(Refusal, match=f"{name} is missing; encode the images first"):
        FeatureFile(tmp_path / "features")


@pytest.mark.parametrize("name", ["encoder.json", "features.npy", "ids.npy"])
@pytest.mark.parametrize("keep", [0, 20])
def test_a_part_cut_short_is_refused(tmp_path: Path, name: str, keep: int):
    file = write(tmp_path / "features") / name
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(Refusal, match="is no feature file"):
        FeatureFile(tmp_path / "features")


def test_parts_of_two_files_are_refused(tmp_path: Path):
    folder = write(tmp_path / "features")
    np.save(folder / "ids.npy", np.array(IDS[:3]))
    with pytest.raises(Refusal, match=r"features are \(5, 6\), ids and encoder.json say \(3, 6\)"):
        FeatureFile(folder)


def test_an_unknown_description_is_refused(tmp_path: Path):
    folder = write(tmp_path / "features")
    fields = json.loads((folder / "encoder.json").read_text())
    (folder / "encoder.json").write_text(json.dumps({**fields, "colour": "red"}))
    with pytest.raises(Refusal, match="is no feature file: .*colour"):
        FeatureFile(folder)
