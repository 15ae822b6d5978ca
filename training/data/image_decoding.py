"""Decodes picture files in worker processes and returns the results in order."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from model.image.colour import BROKEN_PROFILE
from model.image.decode import TRUNCATED, open_image
from model.refusal import Refusal
from training.data.tar_picture import PictureFile

#: A decoded picture, or the reason why it cannot be decoded.
Decoded = Tensor | str
#: Pictures that a worker sends back at a time.
CHUNK = 16
#: Side for which pictures are decoded where only their soundness matters: that of most encoders.
CHECK_SIDE = 224
#: Warnings of a picture, in words.
_WARNINGS = {
    TRUNCATED: "lack the last bytes of their file and are used without them",
    BROKEN_PROFILE: "have a colour profile that cannot be used and are used without it",
}


class SelectedPictures(Sequence[PictureFile]):
    """The picture files of some images, each looked up when needed.

    A list of the files of a million images would take much memory.

    Args:
        files: Image id -> picture file.
        ids: The images, in order, int64 [N].
    """

    def __init__(self, files: Mapping[int, PictureFile], ids: np.ndarray) -> None:
        self._files = files
        self._ids = ids

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self._ids)

    def __getitem__(self, index: int) -> PictureFile:  # type: ignore[override]  # takes no slices
        """The picture file at this index."""
        return self._files[int(self._ids[index])]


class _Pictures(Dataset[tuple[Decoded, list[str]]]):
    """By index: the tensor that `convert` makes of a picture, or why it cannot be decoded.

    With its warnings.
    """

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

    def __getitem__(self, index: int) -> tuple[Decoded, list[str]]:
        file = self.files[index]
        try:
            opened = open_image(file.read_bytes(), self.max_pixels, self.side)
            return self.convert(opened.decode()), opened.warnings
        except (Refusal, OSError) as error:
            return f"{file}: {error}", []


@dataclasses.dataclass(frozen=True)
class Examined:
    """What is known of a picture file after it was decoded.

    Attributes:
        sha256: Of the bytes of the file, in hex; empty if they cannot be read.
        fault: Why it cannot be decoded, or None if it can.
    """

    sha256: str
    fault: str | None


class _Examinations(Dataset[Examined]):
    """By index: SHA-256 of a picture file, and whether it can be decoded."""

    def __init__(self, files: Sequence[PictureFile], max_pixels: int) -> None:
        self.files = files
        self.max_pixels = max_pixels

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Examined:
        file = self.files[index]
        sha256 = ""
        try:
            content = file.read_bytes()
            sha256 = hashlib.sha256(content).hexdigest()
            open_image(content, self.max_pixels, CHECK_SIDE).decode()
        except (Refusal, OSError) as error:
            return Examined(sha256, f"{file}: {error}")
        return Examined(sha256, None)


def decode_files(
    files: Sequence[PictureFile],
    convert: Callable[[Image.Image], Tensor],
    max_pixels: int,
    workers: int,
    side: int | None = None,
) -> Iterator[Decoded]:
    """Decode pictures in worker processes, which work ahead of the caller.

    At the end it prints how many pictures are used although something is wrong with their files,
    and the first of them.

    Args:
        files: Pictures.
        convert: Makes a tensor of a decoded picture; it runs in the worker.
        max_pixels: A picture of more pixels is not decoded.
        workers: Number of processes; 0 decodes in this process.
        side: Length to which `convert` will resize the shorter side (see `load_image`).

    Returns:
        For each file in order its tensor, or the reason why it cannot be decoded.
    """
    pictures = _Pictures(files, convert, max_pixels, side)
    counts: Counter[str] = Counter()
    first: dict[str, PictureFile] = {}
    index = 0
    for chunk in DataLoader(pictures, batch_size=CHUNK, num_workers=workers, collate_fn=list):
        for decoded, warnings in chunk:
            counts.update(warnings)
            for warning in warnings:
                first.setdefault(warning, files[index])
            index += 1
            yield decoded
    for warning, count in counts.items():
        print(f"{count} pictures {_WARNINGS[warning]}: {first[warning]} ...", file=sys.stderr)


def examine_files(
    files: Sequence[PictureFile], max_pixels: int, workers: int
) -> Iterator[Examined]:
    """SHA-256 of each picture file in order, and whether the picture can be decoded.

    Args as of `decode_files`.
    """
    examinations = _Examinations(files, max_pixels)
    for chunk in DataLoader(examinations, batch_size=CHUNK, num_workers=workers, collate_fn=list):
        yield from chunk
