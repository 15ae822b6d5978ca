"""`training.ood`: from a data set to the files in the checkpoint."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from model.checkpoint import Checkpoint, weights_sha256
from model.export import eager_artifact
from model.ood import pooled
from model.ood_file import OOD, OOD_RECORD
from model.reference_file import REFERENCE, Reference
from model.refusal import Refusal
from tests import ROOT
from training.config import Config, OodSettings
from training.data.dataset import CaptionDataset
from training.ood import read_settings
from training.ood_score.learn import encode, learn


@pytest.fixture
def checkpoint(tiny_run: Config, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_run.evaluate.checkpoint, tmp_path / "checkpoint")


def settings(tiny_run: Config, checkpoint: Path, **changes: Any) -> OodSettings:
    own = dataclasses.replace(
        tiny_run.ood, data=tiny_run.evaluate.data, checkpoint=str(checkpoint), workers=0
    )
    return dataclasses.replace(own, **changes)


def test_it_learns_from_training_and_validation_pictures(
    tiny_run: Config, checkpoint: Path, capsys: pytest.CaptureFixture[str]
):
    record = learn(settings(tiny_run, checkpoint))
    assert record == json.loads((checkpoint / OOD_RECORD).read_text())
    assert (record["training_pictures"], record["validation_pictures"]) == (31, 10)
    assert "10 validation pictures are few" in capsys.readouterr().out
    loaded = Checkpoint.load(checkpoint)
    assert loaded.ood is not None
    artifact = eager_artifact(loaded)
    dataset = CaptionDataset.load(tiny_run.evaluate.data)
    ids = list(dataset.ids("val"))
    features, captions = encode(artifact, dataset, ids, settings(tiny_run, checkpoint), "", 4)
    scores, p_values = artifact.ood(features)
    torch.testing.assert_close(scores.sort().values, loaded.ood.score.validation)
    assert p_values.min().item() == pytest.approx(2 / 11, abs=1e-5)  # itself, and itself counted
    assert len(captions) == 4
    reference = Reference.load(checkpoint / REFERENCE)
    assert reference.weights_sha256 == weights_sha256(checkpoint)
    assert [row.caption for row in reference.rows[:4]] == [each.text for each in captions]
    assert len(reference.rows) == 10
    torch.testing.assert_close(reference.rows[3].feature, pooled(features)[3], rtol=2e-3, atol=1e-3)
    assert reference.rows[3].ood_score == pytest.approx(scores[3].item(), abs=1e-4)


def test_other_statistics_are_replaced_and_fewer_pictures_may_be_taken(
    tiny_run: Config, checkpoint: Path
):
    (checkpoint / OOD).write_bytes(b"damaged")
    record = learn(settings(tiny_run, checkpoint, pictures=5, reference=3))
    assert (record["training_pictures"], record["validation_pictures"]) == (5, 5)
    assert len(Reference.load(checkpoint / REFERENCE).rows) == 3
    first = (checkpoint / OOD).read_bytes()
    learn(settings(tiny_run, checkpoint, pictures=5, reference=3))
    assert (checkpoint / OOD).read_bytes() == first


def test_without_validation_pictures_training_ones_take_their_place(
    tiny_run: Config, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    data = shutil.copytree(tiny_run.evaluate.data, tmp_path / "data")
    split = json.loads((data / "split.json").read_text())
    (data / "split.json").write_text(json.dumps({**split, "val": []}))
    record = learn(settings(tiny_run, checkpoint, data=str(data)))
    assert (record["training_pictures"], record["validation_pictures"]) == (27, 4)
    assert "has no validation pictures" in capsys.readouterr().out


def test_too_few_pictures_are_refused(tiny_run: Config, checkpoint: Path, tmp_path: Path):
    data = shutil.copytree(tiny_run.evaluate.data, tmp_path / "data")
    split = json.loads((data / "split.json").read_text())
    (data / "split.json").write_text(json.dumps({**split, "train": split["train"][:2]}))
    with pytest.raises(Refusal, match="has 2 training pictures; .* learned from 3 or more"):
        learn(settings(tiny_run, checkpoint, data=str(data)))
    assert not (checkpoint / OOD).exists()


def test_the_command_reads_its_words():
    config = read_settings(["--data", "d", "--checkpoint", "c", "ood.groups=8"])
    assert (config.ood.data, config.ood.checkpoint, config.ood.groups) == ("d", "c", 8)
    with pytest.raises(Refusal, match="groups"):
        read_settings(["ood.groups=0"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read: No such file"),
        ("", "does not begin with format 1"),
        ('{"format": 1}\n', "is damaged: 'weights_sha256'"),
        ('{"format": 1, "weights_sha256": "", "data": ""}\n{"caption"', "is damaged"),
    ],
)
def test_a_reference_that_is_not_whole_is_refused(tmp_path: Path, text: str | None, message: str):
    file = tmp_path / REFERENCE
    if text is not None:
        file.write_text(text)
    with pytest.raises(Refusal, match=message):
        Reference.load(file)


def test_the_shipped_captioner_has_statistics_of_its_own_weights():
    folder = ROOT / "training" / "pretrained" / "scenes-captioner"
    loaded = Checkpoint.load(folder)
    assert loaded.ood is not None
    reference = Reference.load(folder / REFERENCE)
    assert reference.weights_sha256 == weights_sha256(folder)
    scores, p_values = loaded.ood.score(torch.stack([row.feature for row in reference.rows]))
    for row, score, p_value in zip(reference.rows, scores, p_values, strict=True):
        assert score.item() == pytest.approx(row.ood_score, abs=0.01)
        assert p_value.item() == pytest.approx(row.ood_p_value, abs=0.05)
