"""Captions that are drawn by chance, as a server gives them: seeds, differences, reasons."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.artifact import Artifact
from model.checkpoint import Checkpoint
from model.export import eager_artifact
from model.options import GenerationOptions


@pytest.fixture(scope="module")
def artifact(tiny_artifact: Path) -> Artifact:
    return Artifact.load(tiny_artifact)


def features_of(artifact: Artifact, count: int) -> Tensor:
    side = artifact.preprocessing.size
    random = torch.Generator().manual_seed(2)
    return artifact.encode(torch.randn(count, 3, side, side, generator=random))


def texts(artifact: Artifact, features: Tensor, **options: float) -> list[list[str]]:
    chosen = artifact.defaults.updated(options)
    return [[each.text for each in own] for own in artifact.caption(features, chosen)]


def test_a_seed_gives_the_same_captions_alone_and_in_a_batch(artifact: Artifact):
    features = features_of(artifact, 5)
    drawing = {"temperature": 1.2, "num_captions": 3, "seed": 11}
    together = texts(artifact, features, **drawing)
    assert [texts(artifact, row[None], **drawing)[0] for row in features] == together
    assert texts(artifact, features.flip(0), **drawing) == together[::-1]
    assert texts(artifact, features, **{**drawing, "seed": 12}) != together


def test_several_captions_are_different_and_the_likeliest_comes_first(artifact: Artifact):
    options = artifact.defaults.updated({"temperature": 1.0, "num_captions": 6})
    for captions in artifact.caption(features_of(artifact, 4), options):
        assert len({caption.text for caption in captions}) == len(captions) == 6
        sums = [caption.log_prob for caption in captions]
        assert sums == sorted(sums, reverse=True)


def test_where_there_is_one_caption_only_it_comes_several_times(artifact: Artifact):
    (captions,) = texts(artifact, features_of(artifact, 1), temperature=1, top_k=1, num_captions=3)
    assert len(captions) == 3
    assert len(set(captions)) == 1


def test_a_caption_says_whether_it_was_cut(artifact: Artifact, tiny_checkpoint: Path):
    features, greedy = features_of(artifact, 1), GenerationOptions(num_beams=1, max_tokens=9)
    ((cut,),) = artifact.caption(features, greedy)
    assert (cut.finish_reason, cut.tokens) == ("length", 9)
    # The same weights, where a token that this caption has is the one that ends it.
    checkpoint = Checkpoint.load(tiny_checkpoint)
    end = artifact.tokens(features, greedy)[0][-1]
    checkpoint.captioner.config = dataclasses.replace(checkpoint.captioner.config, end_token_id=end)
    ((ended,),) = eager_artifact(checkpoint).caption(features, greedy)
    assert ended.finish_reason == "end"
