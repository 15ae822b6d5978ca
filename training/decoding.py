"""Picture files decoded in worker processes, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from model.image import load_image
from model.refusal import Refusal

#: Pictures that a worker hands over at a time.
CHUNK = 16


class _Pictures(Dataset[Tensor | str]):
    """Files by number: what `convert` makes of each, or why it cannot be read."""

    def __init__(
        self, files: Sequence[Path], convert: Callable[[Image.Image], Tensor], max_pixels: int
    ) -> None:
        self.files = files
        self.convert = convert
        self.max_pixels = max_pixels

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> Tensor | str:
        file = self.files[number]
        try:
            return self.convert(load_image(file.read_bytes(), self.max_pixels))
        except (Refusal, OSError) as error:
            return f"{file}: {error}"


def decode_files(
    files: Sequence[Path],
    convert: Callable[[Image.Image], Tensor],
    max_pixels: int,
    workers: int,
) -> Iterator[Tensor | str]:
    """Decode pictures ahead of whoever asks for them.

    Args:
        files: Pictures.
        convert: Makes a tensor of a decoded picture, in the worker.
        max_pixels: Larger pictures are refused.
        workers: Processes; 0 decodes in this one.

    Returns:
        For each file in order its tensor, or why it cannot be read.
    """
    pictures = _Pictures(files, convert, max_pixels)
    for chunk in DataLoader(pictures, batch_size=CHUNK, num_workers=workers, collate_fn=list):
        yield from chunk
