"""Scenes that benchmarks draw for themselves, as pictures in memory."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image

from model.artifact import Artifact
from model.image.preprocessing import to_pixels
from training.config import load_config
from training.data.dataset import CaptionDataset
from training.sources.scenes import prepare

#: Pictures that are encoded together.
BATCH = 16


def draw(out: Path, seed: int, **counts: int) -> CaptionDataset:
    """Draw a data set of scenes.

    Args:
        out: Its folder.
        seed: Of the scenes.
        counts: Name of a split -> scenes.
    """
    settings = load_config().scenes
    total = sum(counts.values())
    shares = dict.fromkeys(vars(settings.fractions), 0.0)
    shares |= {name: count / total for name, count in counts.items()}
    fractions = dataclasses.replace(settings.fractions, **shares)
    prepare(
        dataclasses.replace(settings, seed=seed, count=total, fractions=fractions, out=str(out))
    )
    return CaptionDataset.load(out)


def picture(dataset: CaptionDataset, image_id: int) -> Image.Image:
    """One picture, RGB."""
    return Image.open(io.BytesIO(dataset.files[image_id].read_bytes())).convert("RGB")


def encoded(artifact: Artifact, images: Iterator[Image.Image]) -> Iterator[torch.Tensor]:
    """Features of pictures, `BATCH` at a time, as `Artifact.encode` gives them."""
    waiting: list[torch.Tensor] = []
    for image in images:
        waiting.append(to_pixels(image, artifact.preprocessing))
        if len(waiting) == BATCH:
            yield artifact.encode(torch.stack(waiting))
            waiting.clear()
    if waiting:
        yield artifact.encode(torch.stack(waiting))
