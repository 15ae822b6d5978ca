"""The pictures that an export is checked with: of a data set, or generated."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from model.image.preprocessing import Preprocessing, to_pixels
from model.refusal import Refusal
from training.data.dataset import CaptionDataset
from training.data.image_decoding import decode_files

#: Pictures, at most.
SAMPLES = 8
#: Splits to take them from; the first that the data set has counts.
SPLITS = ("test", "val", "train")
#: Largest picture in pixels. The user's own pictures are trusted; this stops a damaged header.
MAX_PIXELS = 200_000_000
#: Width and height of generated pictures.
_SIZE = (320, 280)


def sample_pixels(preprocessing: Preprocessing, data: str | None) -> tuple[Tensor, str]:
    """Pixels of sample pictures, the same ones every time.

    Args:
        preprocessing: The captioner's.
        data: Folder of a data set; None, or a folder without one, for generated pictures.

    Returns:
        Pixels [N, 3, S, S], N at most `SAMPLES`, and words on where the pictures are from.

    Raises:
        Refusal: A picture of the data set cannot be read.
    """
    if data is None or not (Path(data) / "captions.json").exists():
        pictures = [generated_picture(seed) for seed in range(SAMPLES)]
        pixels = torch.stack([to_pixels(picture, preprocessing) for picture in pictures])
        missing = "" if data is None else f", as there is no data set in {data}"
        return pixels, f"{SAMPLES} generated pictures{missing}"
    dataset = CaptionDataset.load(data)
    split = next((name for name in SPLITS if dataset.splits.get(name)), SPLITS[0])
    ids = dataset.ids(split)
    files = [dataset.files[i] for i in ids[:: -(-len(ids) // SAMPLES)]]
    convert = partial(to_pixels, preprocessing=preprocessing)
    rows: list[Tensor] = []
    for decoded in decode_files(files, convert, MAX_PIXELS, 0, preprocessing.size):
        if isinstance(decoded, str):
            raise Refusal(f"{decoded}; mend the data set, or export with export.data=null")
        rows.append(decoded)
    return torch.stack(rows), f"{len(rows)} pictures of the {split} split of {data}"


def generated_picture(seed: int) -> Image.Image:
    """A picture of smooth colours with noise; another seed gives another picture."""
    random = np.random.default_rng(seed)
    colours = Image.fromarray(random.integers(0, 256, (4, 4, 3), np.uint8))
    smooth = np.asarray(colours.resize(_SIZE, Image.Resampling.BICUBIC), np.float32)
    noisy = smooth + random.normal(0, 12, smooth.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
