"""Decoded pictures for end-to-end training: each read once, kept as bytes in a memory map.

Training CLIP visits every picture in every epoch; decoding JPEGs each time would cost more than
the network. The map costs 3 * S * S bytes a picture on disk (49 kB at S = 128), and memory only
as far as the system's page cache has room.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from PIL import Image
from rich.console import Console
from rich.progress import track
from torch import Tensor

from model.image.preprocessing import Preprocessing, to_square
from model.refusal import Refusal
from training.data.image_decoding import decode_files
from training.data.tar_picture import PictureFile


def cached_pixels(
    files: Sequence[PictureFile],
    preprocessing: Preprocessing,
    folder: Path,
    max_pixels: int,
    workers: int,
) -> np.ndarray:
    """Pictures as a memory-mapped array [N, 3, S, S] of uint8, decoded at the first call only.

    Args:
        files: Pictures, in the order of the rows.
        preprocessing: Size and crop; normalisation is left to the reader.
        folder: Where the map is kept; the name says which files and preprocessing it holds.
        max_pixels: Refuse larger pictures.
        workers: Decoding processes.

    Raises:
        Refusal: A picture cannot be read.
    """
    stamps = [(str(file), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files]
    key = json.dumps([stamps, preprocessing.size, preprocessing.resample, preprocessing.crop])
    target = folder / f"pixels-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npy"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        aside = target.with_suffix(".partial")
        side = preprocessing.size
        try:
            rows = open_memmap(aside, mode="w+", dtype=np.uint8, shape=(len(files), 3, side, side))
            convert = partial(_bytes, preprocessing=preprocessing)
            decoded = decode_files(files, convert, max_pixels, workers, side)
            bar = track(decoded, "decoding", len(files), console=Console(stderr=True))
            for row, pixels in enumerate(bar):
                if isinstance(pixels, str):
                    raise Refusal(f"{pixels}; mend or remove it")
                rows[row] = pixels.numpy()
            rows.flush()
            aside.rename(target)
        finally:
            aside.unlink(missing_ok=True)  # mended pictures get a map of another name
    return np.load(target, mmap_mode="r")


def normalised(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """What the encoder takes, float32 [B, 3, S, S], of pixels [B, 3, S, S] in 0..255.

    Args:
        pixels: As `cached_pixels` keeps them.
        mean: Of R, G, B in 0..1, to broadcast; see `model.image.preprocessing.Preprocessing`.
        std: The same.
    """
    return (pixels.float() / 255 - mean) / std


def _bytes(image: Image.Image, preprocessing: Preprocessing) -> Tensor:
    """The square that the encoder sees, uint8 [3, S, S]."""
    return torch.from_numpy(np.array(to_square(image, preprocessing)).transpose(2, 0, 1))
