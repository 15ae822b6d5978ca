"""Pictures decoded in worker processes.

A file of its own because every worker imports it: torch and Pillow, and nothing that takes longer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor

from model.image import Preprocessing, load_image, to_pixels
from model.refusal import Refusal


def decode_images(
    files: Sequence[Path], preprocessing: Preprocessing, max_pixels: int, workers: int
) -> Iterator[Tensor | str]:
    """Pixels [3, S, S] of each file in order, or why it cannot be read.

    Args:
        files: Pictures.
        preprocessing: What the encoder expects.
        max_pixels: Larger pictures are refused.
        workers: Processes.
    """
    jobs = ((file, preprocessing, max_pixels) for file in files)
    pool = get_context("spawn").Pool(workers, initializer=torch.set_num_threads, initargs=(1,))
    with pool:
        yield from pool.imap(_decode, jobs, chunksize=16)


def _decode(job: tuple[Path, Preprocessing, int]) -> Tensor | str:
    file, preprocessing, max_pixels = job
    try:
        return to_pixels(load_image(file.read_bytes(), max_pixels), preprocessing)
    except (Refusal, OSError) as error:
        return f"{file}: {error}"
