"""The quality head of the shipped captioner tells right captions of new scenes from wrong ones."""

from __future__ import annotations

import random

import torch

from model.checkpoint import Checkpoint
from model.export import eager_artifact
from model.image.preprocessing import to_pixels
from tests import ROOT
from training.evaluation.scores.reliability import auroc
from training.scenes import draw_scene, sample_scene
from training.scenes.language.statements import false_claims

SCENES = 160


def test_right_captions_have_a_higher_quality_than_wrong_ones():
    artifact = eager_artifact(
        Checkpoint.load(ROOT / "training" / "pretrained" / "scenes-captioner")
    )
    quality, confidence, right = [], [], []
    for split in ("test", "compositional"):
        scenes = [sample_scene(random.Random(f"quality/{split}/{n}"), split) for n in range(SCENES)]
        pixels = [to_pixels(draw_scene(each, 320, 256), artifact.preprocessing) for each in scenes]
        features = artifact.encode(torch.stack(pixels))
        for scene, captions in zip(
            scenes, artifact.caption(features, artifact.defaults), strict=True
        ):
            assert captions[0].quality is not None
            quality.append(captions[0].quality)
            confidence.append(captions[0].confidence)
            right.append(not false_claims(captions[0].text, scene))
    found, plain = auroc(quality, right), auroc(confidence, right)
    assert found is not None
    assert plain is not None
    assert found > 0.75
    assert found > plain + 0.1
