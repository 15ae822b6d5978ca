"""Images as the captioner is trained on: cached features, or pixels if CLIP is trained too."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from training.captioner.data import Images
from training.captioner.text_features import first_rows, text_features
from training.config import Config
from training.data.dataset import CaptionDataset
from training.encoding.encoder import Encoder
from training.encoding.feature_file import FeatureFile
from training.encoding.pixel_cache import cached_pixels


class SplitImages(NamedTuple):
    """The images of a split.

    Attributes:
        images: Memory-mapped; float32 [N, *shape] features, or uint8 [N, 3, S, S] pixels.
        rows: int64; row of each image of the split in `images`, -1 for one that was left out.
    """

    images: Images
    rows: np.ndarray


def split_images(
    config: Config, dataset: CaptionDataset, encoder: Encoder, split: str
) -> SplitImages:
    """The images of a split: features if CLIP is frozen, else pixels.

    With `train.text_only` they are text features, one of each caption, and `rows` are those of the
    first caption of each image (see `training.captioner.text_features`).

    Raises:
        Refusal: There is no feature file of this encoder, or a picture cannot be read.
    """
    settings = config.train
    ids = dataset.ids(split)
    if settings.text_only:
        texts = text_features(dataset, split, config.features.clip)
        return SplitImages(texts, first_rows(dataset, split))
    if settings.clip.tuning == "frozen":
        file = FeatureFile(settings.features, encoder.identity)
        return SplitImages(file.features, file.rows(ids))
    pixels = cached_pixels(
        [dataset.files[i] for i in ids],
        encoder.preprocessing,
        Path(settings.clip.pixels),
        settings.clip.max_pixels,
        settings.clip.workers,
    )
    return SplitImages(pixels, np.arange(len(ids)))


def statistics(batches: Iterable[np.ndarray]) -> dict[str, Any]:
    """Mean and standard deviation of features, to compare those of a server's inputs with.

    Args:
        batches: Features [B, ..., D], a part at a time.

    Returns:
        `count` of the images, and lists `mean` and `std` of each of the D dimensions.
    """
    images, vectors, total, squares = 0, 0, np.float64(0), np.float64(0)
    for batch in batches:
        images += len(batch)
        flat = batch.reshape(-1, batch.shape[-1]).astype(np.float64)
        vectors += len(flat)
        total += flat.sum(axis=0)
        squares += np.square(flat).sum(axis=0)
    mean = total / vectors
    std = np.sqrt((squares / vectors - mean**2).clip(min=0))
    return {"count": images, "mean": np.round(mean, 6).tolist(), "std": np.round(std, 6).tolist()}
