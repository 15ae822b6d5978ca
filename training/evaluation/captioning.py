"""Captions of the pictures of a split, as a server would write them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from rich.console import Console
from rich.progress import track

from model.artifact import Artifact, GeneratedCaption
from model.image.preprocessing import Preprocessing, to_pixels
from model.refusal import Refusal
from training.config import Evaluate, OodSettings, Quality
from training.data.dataset import CaptionDataset
from training.data.image_decoding import decode_files
from training.data.tar_picture import PictureFile


def caption_split(
    artifact: Artifact,
    dataset: CaptionDataset,
    split: str,
    settings: Evaluate,
    look: Callable[[Sequence[int], torch.Tensor], None] | None = None,
) -> dict[int, GeneratedCaption]:
    """The best caption of every picture of a split, by the captioner's own defaults.

    Args:
        artifact: The captioner.
        dataset: The data set.
        split: Name of the split.
        settings: See `training.config.Evaluate`.
        look: Called with the image ids and the features, [B, D] or [B, P, D], of each batch, so
            that they need not be computed again for something else.

    Returns:
        Image id -> caption, in the order of the split.

    Raises:
        Refusal: A picture cannot be read; a score of the others would mislead.
    """
    ids = dataset.ids(split)
    files = [dataset.files[i] for i in ids]
    decoded = decode_pixels(artifact.preprocessing, files, settings)
    captions: dict[int, GeneratedCaption] = {}
    waiting: list[tuple[int, torch.Tensor]] = []

    def flush() -> None:
        features = artifact.encode(torch.stack([pixels for _, pixels in waiting]))
        if look is not None:
            look([i for i, _ in waiting], features)
        best = [found[0] for found in artifact.caption(features, artifact.defaults)]
        captions.update(zip((i for i, _ in waiting), best, strict=True))
        waiting.clear()

    bar = track(decoded, f"captioning {split}", len(ids), console=Console(stderr=True))
    for image_id, pixels in zip(ids, bar, strict=True):
        if isinstance(pixels, str):
            raise Refusal(f"{pixels}; mend the data set, a score of part of it would mislead")
        waiting.append((image_id, pixels))
        if len(waiting) == settings.batch_size:
            flush()
    if waiting:
        flush()
    return captions


def decode_pixels(
    preprocessing: Preprocessing,
    files: Sequence[PictureFile],
    settings: Evaluate | Quality | OodSettings,
) -> Iterator[torch.Tensor | str]:
    """Pixels [3, S, S] of each file, or why it cannot be read."""
    convert = partial(to_pixels, preprocessing=preprocessing)
    workers, side = settings.workers, preprocessing.size
    return decode_files(files, convert, settings.max_pixels, workers, side)
