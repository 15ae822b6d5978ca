"""Pictures of any size for benchmarks: no photos, but as hard to decode."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def draw_pictures(folder: Path, size: tuple[int, int], count: int) -> list[Path]:
    """JPEG files of blurred colours with grain: about as many bytes as photos of their size."""
    rng = np.random.default_rng(1)
    files = []
    for number in range(count):
        colours = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC))
        grain = rng.integers(-9, 10, smooth.shape, dtype=np.int16)
        picture = np.clip(smooth + grain, 0, 255).astype(np.uint8)
        file = folder / f"{size[0]}x{size[1]}-{number}.jpg"
        Image.fromarray(picture).save(file, quality=90)
        files.append(file)
    return files
