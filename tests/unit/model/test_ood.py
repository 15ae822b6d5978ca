"""The out-of-distribution score: its numbers, and its way from the checkpoint to a server."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.artifact import OOD_FILE, Artifact
from model.checkpoint import Checkpoint, weights_sha256
from model.ood import OodScore
from model.ood_file import OOD, OOD_RECORD
from model.refusal import Refusal
from training.ood_score.fitting import fit, k_means, whitening_of


def features(count: int, seed: int = 0, width: int = 6) -> Tensor:
    """Two groups of correlated features."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=torch.Generator().manual_seed(99))
    groups = torch.randint(0, 2, (count, 1), generator=generator) * 20.0
    return torch.randn(count, width, generator=generator) @ mix + groups


def test_p_values_are_shares_of_the_validation_images():
    score = fit(features(300), features(99, 1), groups=2, seed=1)
    scores, p_values = score(features(50, 2))
    for own, p_value in zip(scores, p_values, strict=True):
        as_unusual = sum(float(each) >= float(own) for each in score.validation)
        assert float(p_value) == pytest.approx((as_unusual + 1) / 100)
    # One that is exactly as unusual as a validation image counts that image.
    score.validation.copy_(torch.full((99,), float(scores[0])))
    assert float(score(features(50, 2))[1][0]) == 1.0


def test_usual_images_have_a_p_value_up_to_p_as_often_as_p():
    score = fit(features(500), features(400, 1), groups=2, seed=1)
    p_values = score(features(2000, 2))[1]
    for p in (0.05, 0.2, 0.5, 0.9):
        assert float((p_values <= p).float().mean()) == pytest.approx(p, abs=0.06)


def test_the_score_knows_groups_and_correlation():
    score = fit(features(500), features(200, 1), groups=2, seed=1)
    between = features(500).mean(0, keepdim=True)  # the mean of all is far from both groups
    stretched = features(1, 3) + torch.tensor([5.0, -5, 5, -5, 5, -5])  # against the correlation
    far = torch.full((1, 6), 1e6)
    for odd in (between, stretched, far):
        assert float(score(odd)[1][0]) < 0.01
    assert float(score.validation.median()) == pytest.approx(1.0, abs=0.25)


def test_patches_count_as_their_mean_and_a_batch_as_its_images():
    score = fit(features(300), features(50, 1), groups=2, seed=1)
    patches = features(80, 2).reshape(8, 10, 6)
    together = score(patches)[0]
    assert torch.allclose(together, score(patches.mean(1))[0])
    alone = torch.cat([score(each[None])[0] for each in patches])
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("count", [3, 7])
def test_few_images_and_dimensions_that_never_vary_give_finite_scores(count: int):
    few = features(count, width=40)
    few[:, 5] = 1.0
    alike = torch.ones(count, 40)
    for training in (few, alike):
        score = fit(training, training, groups=64, seed=1)
        scores, p_values = score(torch.cat([training, features(2, 5, 40)]))
        assert scores.isfinite().all()
        assert ((p_values > 0) & (p_values <= 1)).all()


def test_the_covariance_is_shrunk_as_by_scikit_learn():
    covariance = pytest.importorskip("sklearn.covariance")
    centred = features(30, width=12).double()
    centred = centred - centred.mean(0)
    whitening = whitening_of(centred)
    expected = covariance.ledoit_wolf(centred.numpy(), assume_centered=True)[0]
    found = torch.linalg.inv(whitening @ whitening.T)
    assert torch.allclose(found, torch.from_numpy(expected), rtol=1e-6, atol=1e-8)


def test_k_means_finds_groups_and_each_point_is_nearest_to_its_own():
    points = features(200).double()
    centres, owners = k_means(points, 2, 1)
    assert torch.equal(owners, torch.cdist(points, centres).argmin(1))
    assert (centres[0] - centres[1]).abs().min() > 15
    for group in range(2):
        assert torch.allclose(centres[group], points[owners == group].mean(0))


def test_it_travels_from_the_checkpoint_to_the_artifact(tiny_checkpoint: Path, tiny_artifact: Path):
    checkpoint, artifact = Checkpoint.load(tiny_checkpoint), Artifact.load(tiny_artifact)
    assert checkpoint.ood is not None
    pixels = torch.randn(3, 3, 32, 32)
    encoded = artifact.encode(pixels)
    for found, expected in zip(artifact.ood(encoded), checkpoint.ood.score(encoded), strict=True):
        assert torch.equal(found, expected)
    assert artifact.info["ood"]["groups"] == 2


def test_a_checkpoint_without_it_gives_an_artifact_without_it(
    tiny_checkpoint: Path, tiny_artifact: Path, tmp_path: Path
):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
    (folder / OOD).unlink()
    assert Checkpoint.load(folder).ood is None
    older = shutil.copytree(tiny_artifact, tmp_path / "artifact")
    info = json.loads((older / "captioner.json").read_text())
    del info["ood"]  # as an older version wrote it
    (older / "captioner.json").write_text(json.dumps(info))
    assert Artifact.load(older).ood_score is None


def test_statistics_of_other_weights_and_damaged_ones_are_refused(
    tiny_checkpoint: Path, tmp_path: Path
):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
    tensors = load_file(folder / OOD)
    save_file(tensors, folder / OOD, metadata={"weights_sha256": "another"})
    with pytest.raises(Refusal, match="was learned for weights with SHA-256 another"):
        Checkpoint.load(folder)
    assert Checkpoint.load(folder, learned=()).ood is None
    digest = weights_sha256(tiny_checkpoint)
    wide = {**tensors, "mean": torch.zeros(7)}
    save_file(wide, folder / OOD, metadata={"weights_sha256": digest})
    with pytest.raises(Refusal, match=r"does not fit features of width 24: \['mean'\]"):
        Checkpoint.load(folder)
    (folder / OOD).write_bytes(b"half")
    with pytest.raises(Refusal, match=r"damaged.*python -m training\.ood"):
        Checkpoint.load(folder)
    shutil.copy(tiny_checkpoint / OOD, folder / OOD)
    (folder / OOD_RECORD).unlink()
    with pytest.raises(Refusal, match=r"ood\.json cannot be read"):
        Checkpoint.load(folder)


def test_an_artifact_needs_the_file_of_its_export(tiny_artifact: Path, tmp_path: Path):
    folder = shutil.copytree(tiny_artifact, tmp_path / "artifact")
    torch.save(OodScore(24, 1, 1).state_dict(), folder / OOD_FILE)
    with pytest.raises(Refusal, match="is not the file captioner.json was written for"):
        Artifact.load(folder)
    (folder / OOD_FILE).unlink()
    with pytest.raises(Refusal, match=r"ood\.pt is missing"):
        Artifact.load(folder)
