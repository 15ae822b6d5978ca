"""Picture files decoded in worker processes, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from model.image.decode import load_image
from model.refusal import Refusal
from training.data.tar_picture import PictureFile

#: A picture as a tensor, or why it cannot be read.
Decoded = Tensor | str
#: Pictures that a worker hands over at a time.
CHUNK = 16


class Chosen(Sequence[PictureFile]):
    """Pictures by number, each looked up when it is wanted: a list of a million takes memory.

    Args:
        files: Image id -> picture.
        ids: The images, in order, [N].
    """

    def __init__(self, files: Mapping[int, PictureFile], ids: np.ndarray) -> None:
        self._files = files
        self._ids = ids

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self._ids)

    def __getitem__(self, number: int) -> PictureFile:  # type: ignore[override]  # slices nobody needs
        """The picture at this place."""
        return self._files[int(self._ids[number])]


class _Pictures(Dataset[Decoded]):
    """Files by number: what `convert` makes of each, or why it cannot be read."""

    def __init__(
        self,
        files: Sequence[PictureFile],
        convert: Callable[[Image.Image], Tensor],
        max_pixels: int,
        side: int | None,
    ) -> None:
        self.files = files
        self.convert = convert
        self.max_pixels = max_pixels
        self.side = side

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> Decoded:
        file = self.files[number]
        try:
            return self.convert(load_image(file.read_bytes(), self.max_pixels, self.side))
        except (Refusal, OSError) as error:
            return f"{file}: {error}"


def decode_files(
    files: Sequence[PictureFile],
    convert: Callable[[Image.Image], Tensor],
    max_pixels: int,
    workers: int,
    side: int | None = None,
) -> Iterator[Decoded]:
    """Decode pictures ahead of whoever asks for them.

    Args:
        files: Pictures.
        convert: Makes a tensor of a decoded picture, in the worker.
        max_pixels: Larger pictures are refused.
        workers: Processes; 0 decodes in this one.
        side: What `convert` will resize the shorter side to (see `load_image`).

    Returns:
        For each file in order its tensor, or why it cannot be read.
    """
    pictures = _Pictures(files, convert, max_pixels, side)
    for chunk in DataLoader(pictures, batch_size=CHUNK, num_workers=workers, collate_fn=list):
        yield from chunk


def undecodable(
    files: Sequence[PictureFile], max_pixels: int, workers: int
) -> Iterator[str | None]:
    """Why each picture in order cannot be read, None for one that can (see `decode_files`)."""
    for result in decode_files(files, _nothing, max_pixels, workers):
        yield result if isinstance(result, str) else None


def _nothing(_: Image.Image) -> Tensor:
    """That a picture could be decoded is all there is to know."""
    return torch.empty(0)
