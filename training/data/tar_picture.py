"""A picture inside a tar file, read where it lies; with `Path`, what a data set has pictures in."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from model.refusal import Refusal


@dataclasses.dataclass(frozen=True)
class TarPicture:
    """Some bytes of an uncompressed tar file.

    Attributes:
        tar: The tar file.
        tar_size: Its bytes when the data set was made; in another one the places mean nothing.
        name: Of the picture in it, for people.
        offset: First byte of the picture.
        size: Its bytes.
    """

    tar: Path
    tar_size: int
    name: str
    offset: int
    size: int

    def read_bytes(self) -> bytes:
        """The picture file.

        Raises:
            OSError: The tar file cannot be read.
            Refusal: It is another one.
        """
        with self.tar.open("rb") as file:
            found = os.fstat(file.fileno()).st_size
            if found != self.tar_size:
                raise Refusal(
                    f"the tar file has {found} bytes, it had {self.tar_size} when the data set "
                    "was made; make the data set again: python -m training.prepare"
                )
            file.seek(self.offset)
            return file.read(self.size)

    def stat(self) -> os.stat_result:
        """Of the tar file: the picture changes no later than that."""
        return self.tar.stat()

    def __str__(self) -> str:
        """Where it is, for messages."""
        return f"{self.tar}: {self.name}"


PictureFile = Path | TarPicture
