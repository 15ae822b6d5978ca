"""Feature files: complete or absent, of one encoder, found by image id, resumed shard by shard."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest

from model.refusal import Refusal
from tests.models import PREPROCESSING
from training.encoding.feature_file import EncoderIdentity, FeatureFile
from training.encoding.feature_shards import FeatureWriter, writing_features

ENCODER = EncoderIdentity("some/clip", "ab" * 32, (6,), PREPROCESSING)
IDS = [2, 3, 5, 8, 13]
#: Image ids of each shard; one has no sound image.
SHARDS = [IDS[:2], [], IDS[2:]]
PARTS = ["encoder.json", "ids.npy", *(f"features-0000{number}.npy" for number in range(3))]


def features_of(ids: list[int]) -> np.ndarray:
    return np.array([[100 * i + k for k in range(6)] for i in ids], np.float32).reshape(-1, 6)


def made_of(**changes: object) -> list[dict[str, object]]:
    return [{"images": ids, **changes} for ids in SHARDS]


def fill(writer: FeatureWriter, number: int) -> None:
    with writer.shard(number) as rows:
        for image_id in SHARDS[number]:
            rows.add([image_id], features_of([image_id]))
        rows.broken.append(f"something in shard {number}")


def write(folder: Path, **changes: object) -> Path:
    with writing_features(folder, ENCODER, made_of(**changes)) as writer:
        for number in range(len(SHARDS)):
            if number not in writer.complete:
                fill(writer, number)
    return folder


def interrupted(folder: Path, encoder: EncoderIdentity = ENCODER) -> None:
    """A run that fails in the last shard, after some of its rows."""

    def run() -> None:
        with writing_features(folder, encoder, made_of()) as writer:
            fill(writer, 0)
            fill(writer, 1)
            with writer.shard(2) as rows:
                rows.add(IDS[2:3], features_of(IDS[2:3]))
                raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        run()


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_folder_of_something_else_is_not_replaced_by_a_feature_file(tmp_path: Path):
    mine = tmp_path / "photos" / "photo.jpg"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(Refusal, match=r"photos holds something else \(no encoder.json\)"):
        write(mine.parent)
    assert mine.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [mine.parent]


def test_the_shards_are_read_as_one_array(tmp_path: Path):
    file = FeatureFile(write(tmp_path / "features"), ENCODER)
    expected = features_of(IDS)
    assert file.features.shape == expected.shape
    np.testing.assert_array_equal(file.features[:], expected)
    order = np.array([4, 0, 0, 3, 1, 2])
    np.testing.assert_array_equal(file.features[order], expected[order])
    np.testing.assert_array_equal(file.features[3], expected[3])
    np.testing.assert_array_equal(file.features[1:4], expected[1:4])
    assert file.ids.tolist() == IDS
    assert file.encoder == ENCODER
    assert sorted(content(tmp_path / "features")) == sorted(PARTS)
    assert [path.name for path in tmp_path.iterdir()] == ["features"]


@pytest.mark.parametrize("rows", [[-1], [0, 5]])
def test_a_row_outside_of_the_file_is_an_error(tmp_path: Path, rows: list[int]):
    with pytest.raises(IndexError, match="of 5"):
        FeatureFile(write(tmp_path / "features")).features[rows]


@pytest.mark.parametrize("count", [0, 1, 9, 10, 99_999, 100_000])
def test_shards_are_what_numpy_would_save(tmp_path: Path, count: int):
    ids = list(range(count))
    expected = np.ones((count, 2, 3), np.float32)
    encoder = dataclasses.replace(ENCODER, shape=(2, 3))
    with writing_features(tmp_path / "features", encoder, [{}]) as writer, writer.shard(0) as rows:
        rows.add(ids, expected)
    np.save(tmp_path / "expected.npy", expected)
    found = (tmp_path / "features" / "features-00000.npy").read_bytes()
    assert found == (tmp_path / "expected.npy").read_bytes()


def test_features_of_another_shape_are_an_error(tmp_path: Path):
    with (
        pytest.raises(ValueError, match=r"1 features of \(6,\) expected, got \(1, 5\)"),
        writing_features(tmp_path / "features", ENCODER, [{}]) as writer,
        writer.shard(0) as rows,
    ):
        rows.add([1], np.zeros((1, 5), np.float32))


def test_rows_are_found_by_image_id_and_missing_ones_are_minus_one(tmp_path: Path):
    file = FeatureFile(write(tmp_path / "features"), ENCODER)
    assert file.rows([8, 1, 2, 99, 4, 13]).tolist() == [3, -1, 0, -1, -1, 4]
    assert file.rows([]).tolist() == []


def test_features_of_another_kind_are_refused_with_the_setting(tmp_path: Path):
    patches = dataclasses.replace(ENCODER, shape=(4, 6), kind="patches")
    with pytest.raises(Refusal, match=r"holds pooled features, .* features\.kind=patches"):
        FeatureFile(write(tmp_path / "features"), patches)


def test_a_file_without_a_kind_is_pooled(tmp_path: Path):
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


def test_a_failed_run_leaves_the_older_file_and_its_complete_shards(tmp_path: Path):
    before = content(write(tmp_path / "features", age="old"))
    interrupted(tmp_path / "features")
    assert content(tmp_path / "features") == before
    with writing_features(tmp_path / "features", ENCODER, made_of()) as writer:
        assert {n: shard.ids.tolist() for n, shard in writer.complete.items()} == {0: [2, 3], 1: []}
        assert writer.complete[1].broken == ["something in shard 1"]
        assert not writer.changed
        fill(writer, 2)
    assert content(tmp_path / "features") == content(write(tmp_path / "at once"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["at once", "features"]


def test_shards_with_other_ingredients_are_written_again_and_the_others_kept(tmp_path: Path):
    interrupted(tmp_path / "features")
    changed = made_of()
    changed[0]["images"] = [2, 4]
    with writing_features(tmp_path / "features", ENCODER, changed) as writer:
        assert set(writer.complete) == {1}
        assert writer.changed == {"images"}
        fill(writer, 0)
        fill(writer, 2)
    interrupted(tmp_path / "features")
    with writing_features(tmp_path / "features", ENCODER, made_of(batch_size=7)) as writer:
        assert not writer.complete
        assert writer.changed == {"batch_size"}
        for number in range(3):
            fill(writer, number)
    assert content(tmp_path / "features") == content(write(tmp_path / "at once"))


def test_shards_that_are_not_needed_any_more_are_removed(tmp_path: Path):
    interrupted(tmp_path / "features")
    with writing_features(tmp_path / "features", ENCODER, made_of()[:1]) as writer:
        assert set(writer.complete) == {0}
    assert FeatureFile(tmp_path / "features").ids.tolist() == [2, 3]


def test_a_second_run_at_the_same_time_is_refused(tmp_path: Path):
    with writing_features(tmp_path / "features", ENCODER, made_of()) as writer:
        second = os.fork()
        if not second:
            try:
                write(tmp_path / "features")
            except Refusal as error:
                (tmp_path / "refusal").write_text(str(error))
            os._exit(0)
        os.waitpid(second, 0)
        for number in range(3):
            fill(writer, number)
    words = f"another run (process {os.getpid()}) writes to {tmp_path / 'features'}.partial; wait"
    assert (tmp_path / "refusal").read_text().startswith(words)
    assert FeatureFile(tmp_path / "features").ids.tolist() == IDS


@pytest.mark.parametrize("name", ["encoder.json", "features-00000.npy", "ids.npy"])
def test_a_missing_part_is_refused_by_name(tmp_path: Path, name: str):
    folder = write(tmp_path / "features")
    for path in folder.glob(name.replace("00000", "*")):
        path.unlink()
    with pytest.raises(Refusal, match=f"{name} is missing; encode the images first"):
        FeatureFile(folder)


@pytest.mark.parametrize("name", ["encoder.json", "features-00000.npy", "ids.npy"])
@pytest.mark.parametrize("keep", [0, 20])
def test_a_part_cut_short_is_refused(tmp_path: Path, name: str, keep: int):
    file = write(tmp_path / "features") / name
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(Refusal, match="is not a feature file"):
        FeatureFile(tmp_path / "features")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ids.npy", np.int64(3)),
        ("ids.npy", np.array([IDS])),
        ("ids.npy", np.array(IDS, np.float64)),
        ("ids.npy", np.array(["a"] * len(IDS))),
        ("ids.npy", np.array([IDS[0]] * len(IDS))),
        ("ids.npy", np.array(IDS[::-1])),
        ("features-00000.npy", np.array([["a"] * 6] * 2)),
        ("features-00000.npy", np.ones((2, 6), np.int64)),
    ],
)
def test_parts_that_hold_something_else_are_refused(tmp_path: Path, name: str, content: np.ndarray):
    folder = write(tmp_path / "features")
    np.save(folder / name, content)
    with pytest.raises(Refusal, match=r"is not a feature file: (ids.npy does not|its shards) hold"):
        FeatureFile(folder)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"made_of": {}, "ids": [1]}'])
def test_a_shard_with_a_damaged_record_is_written_again(tmp_path: Path, content: str):
    interrupted(tmp_path / "features")
    (tmp_path / "features.partial" / "shard-00000.json").write_text(content)
    with writing_features(tmp_path / "features", ENCODER, made_of()) as writer:
        assert sorted(writer.complete) == [1]
        fill(writer, 0)
        fill(writer, 2)
    assert FeatureFile(tmp_path / "features").ids.tolist() == IDS


def test_parts_of_two_feature_files_are_refused(tmp_path: Path):
    folder = write(tmp_path / "features")
    (folder / "features-00002.npy").unlink()
    with pytest.raises(Refusal, match=r"features are \(2, 6\), ids and encoder.json give \(5, 6\)"):
        FeatureFile(folder)
    np.save(folder / "features-00002.npy", np.ones((3, 4), np.float32))
    with pytest.raises(Refusal, match="shards have rows of different shapes"):
        FeatureFile(folder)


def test_an_unknown_description_is_refused(tmp_path: Path):
    folder = write(tmp_path / "features")
    fields = json.loads((folder / "encoder.json").read_text())
    (folder / "encoder.json").write_text(json.dumps({**fields, "colour": "red"}))
    with pytest.raises(Refusal, match="is not a feature file: .*colour"):
        FeatureFile(folder)


def test_patches_are_kept_in_16_bits_and_read_in_32(tmp_path: Path):
    encoder = dataclasses.replace(ENCODER, shape=(4, 3), kind="patches")
    patches = np.random.default_rng(0).normal(0, 30, (2, 4, 3)).astype(np.float32)
    with writing_features(tmp_path / "f", encoder, [{}]) as writer, writer.shard(0) as rows:
        rows.add([1, 2], patches)
    assert np.load(tmp_path / "f/features-00000.npy").dtype == np.float16
    read = FeatureFile(tmp_path / "f", encoder).features[:]
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, patches, rtol=2**-11)


def test_features_too_large_for_the_file_are_refused(tmp_path: Path):
    encoder = dataclasses.replace(ENCODER, shape=(1, 1), kind="patches")
    with (
        pytest.raises(Refusal, match=r"reach 70000, which float16 cannot hold \(at most 65504\)"),
        writing_features(tmp_path / "f", encoder, [{}]) as writer,
        writer.shard(0) as rows,
    ):
        rows.add([1], np.full((1, 1, 1), 7e4, np.float32))
    assert not (tmp_path / "f").exists()
