"""Training on captions alone: what stands for the images, and what becomes of it."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoTokenizer, CLIPModel

from model.checkpoint import Checkpoint
from model.export import eager_artifact
from model.network.captioner import ClipCap
from model.refusal import Refusal
from training.captioner.text_features import first_rows, noisy, text_features
from training.captioner.train import train
from training.config import Config
from training.data.dataset import CaptionDataset


@pytest.fixture
def without_images(tiny_run: Config, tiny_scenes: Path, tmp_path: Path) -> Config:
    """The settings of a training on the captions of the small data set, whose pictures are gone."""
    data = tmp_path / "scenes"
    shutil.copytree(tiny_scenes, data, ignore=shutil.ignore_patterns("images"))
    settings = dataclasses.replace(
        tiny_run.train,
        data=str(data),
        features=str(tmp_path / "none"),
        normalize_feature=True,
        text_only=True,
        text_noise=0.1,
        epochs=1,
        **{name: str(tmp_path / name) for name in ("out", "work", "curves")},
    )
    return dataclasses.replace(tiny_run, train=settings)


def test_text_features_are_hugging_face_s_in_the_order_of_the_captions(
    tiny_scenes: Path, tiny_clip: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("training.captioner.text_features.CAPTIONS_TOGETHER", 7)
    dataset = CaptionDataset.load(tiny_scenes)
    found, rows = text_features(dataset, "val", str(tiny_clip)), first_rows(dataset, "val")
    assert found.shape == (sum(len(dataset.captions[i]) for i in dataset.ids("val")), 24)
    clip = CLIPModel.from_pretrained(tiny_clip).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_clip)
    for image_id, row in zip(dataset.ids("val"), rows, strict=True):
        for k, text in enumerate(dataset.captions[image_id]):
            tokens = tokenizer([text], truncation=True, max_length=24, return_tensors="pt")
            with torch.inference_mode():
                pooled = clip.text_model(input_ids=tokens["input_ids"]).pooler_output
                expected = F.normalize(clip.text_projection(pooled), dim=-1)[0]
            np.testing.assert_allclose(found[row + k], expected.numpy(), atol=1e-5)


def test_noise_moves_a_feature_on_the_sphere_by_its_level():
    torch.manual_seed(0)
    features = F.normalize(torch.randn(200, 64), dim=-1)
    torch.testing.assert_close(noisy(3 * features, 0.0), features)
    moved = noisy(features, 0.1)
    torch.testing.assert_close(moved.norm(dim=-1), torch.ones(200))
    # Noise of 64 dimensions has the length 0.8, nearly at a right angle to the feature.
    expected = 1 / (1 + 64 * 0.1**2) ** 0.5
    assert F.cosine_similarity(moved, features).mean().item() == pytest.approx(expected, abs=0.01)


def test_a_captioner_of_captions_alone_captions_pictures(
    without_images: Config, tiny_scenes: Path, monkeypatch: pytest.MonkeyPatch
):
    forward, seen = ClipCap.forward, []

    def noted(captioner: ClipCap, *given: Any, **named: Any) -> Tensor:
        seen.append((captioner.training, *given[:2]))
        return forward(captioner, *given, **named)

    monkeypatch.setattr(ClipCap, "forward", noted)
    train(without_images)
    dataset = CaptionDataset.load(tiny_scenes)
    clean = {
        split: torch.from_numpy(text_features(dataset, split, without_images.features.clip))
        for split in ("train", "val")
    }
    for training, features, labels in seen:
        assert len(features) == len(labels)  # each caption has its own
        nearest = (features @ clean["train" if training else "val"].T).max(1).values
        exact = torch.allclose(nearest, torch.ones(len(nearest)), atol=1e-5)
        assert exact != training  # noise in training only
    checkpoint = Checkpoint.load(without_images.train.out)
    assert checkpoint.training_features is None
    assert checkpoint.training is not None
    assert checkpoint.training["text_noise"] == 0.1
    artifact = eager_artifact(checkpoint)
    side = artifact.preprocessing.size
    captions = artifact.caption(artifact.encode(torch.rand(2, 3, side, side)), artifact.defaults)
    assert [len(image) for image in captions] == [1, 1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"normalize_feature": False}, "train.normalize_feature is false: .*=true"),
        ({"text_noise": -1.0}, "train.text_noise is -1.0; it must be at least 0"),
    ],
)
def test_settings_that_do_not_go_with_it_are_refused(
    without_images: Config, changes: dict[str, Any], words: str
):
    settings = dataclasses.replace(without_images.train, **changes)
    with pytest.raises(Refusal, match=words):
        train(dataclasses.replace(without_images, train=settings))


def test_a_tuned_clip_has_no_text_only_training(without_images: Config):
    clip = dataclasses.replace(without_images.train.clip, tuning="full")
    settings = dataclasses.replace(without_images.train, clip=clip)
    with pytest.raises(Refusal, match=r"train.clip.tuning is full: .*; set train.clip.tuning=fro"):
        train(dataclasses.replace(without_images, train=settings))
