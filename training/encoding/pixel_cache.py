"""Keeps decoded pictures on disk, for training with a CLIP that is not frozen.

Such training reads every picture in every epoch, and decoding the JPEGs each time would take longer
than the network. So each picture is decoded once, to the square that the encoder sees, and written
to a memory-mapped file. The file takes 3 * S * S bytes a picture (49 kB at S = 128); the system
keeps as much of it in memory as is free.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
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
    """The pixels of some pictures; they are decoded at the first call only.

    Args:
        files: Pictures, in the order of the rows.
        preprocessing: Gives size, resampling and crop. Normalisation is done by the reader.
        folder: Folder of the cache. The name of a cache file is a hash of the pictures (name, size
            and time of change) and the preprocessing, so a changed picture makes another file.
        max_pixels: A picture of more pixels is refused.
        workers: Processes that decode.

    Returns:
        Memory-mapped, uint8 [N, 3, S, S].

    Raises:
        Refusal: A picture cannot be decoded.
    """
    stamps = [(str(file), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files]
    key = json.dumps([stamps, preprocessing.size, preprocessing.resample, preprocessing.crop])
    target = folder / f"pixels-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npy"
    folder.mkdir(parents=True, exist_ok=True)
    # Of several processes that train together, the first decodes and the others wait.
    with FileLock(target.with_suffix(".lock")):
        if not target.exists():
            _decode(files, preprocessing, target, max_pixels, workers)
    return np.load(target, mmap_mode="r")


def _decode(
    files: Sequence[PictureFile],
    preprocessing: Preprocessing,
    target: Path,
    max_pixels: int,
    workers: int,
) -> None:
    """Write the pixels of some pictures to `target`; it is complete or absent."""
    partial_file, side = target.with_suffix(".partial"), preprocessing.size
    try:
        shape = (len(files), 3, side, side)
        rows = open_memmap(partial_file, mode="w+", dtype=np.uint8, shape=shape)
        convert = partial(_bytes, preprocessing=preprocessing)
        decoded = decode_files(files, convert, max_pixels, workers, side)
        bar = track(decoded, "decoding", len(files), console=Console(stderr=True))
        for row, pixels in enumerate(bar):
            if isinstance(pixels, str):
                raise Refusal(f"{pixels}; mend or remove it")
            rows[row] = pixels.numpy()
        rows.flush()
        partial_file.rename(target)
    finally:
        # After an error it is of no use: the corrected pictures give a file of another name.
        partial_file.unlink(missing_ok=True)


def normalised(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """The input of the encoder.

    Args:
        pixels: Of `cached_pixels`, [B, 3, S, S], each from 0 to 255.
        mean: Of red, green and blue, on a scale from 0 to 1; shape broadcasts to `pixels` (see
            `model.image.preprocessing.Preprocessing`).
        std: Standard deviation, likewise.

    Returns:
        float32 [B, 3, S, S].
    """
    return (pixels.float() / 255 - mean) / std


def _bytes(image: Image.Image, preprocessing: Preprocessing) -> Tensor:
    """The square that the encoder sees, uint8 [3, S, S]."""
    return torch.from_numpy(np.array(to_square(image, preprocessing)).transpose(2, 0, 1))
