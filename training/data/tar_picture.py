"""A picture inside a tar file, read in place, so that shards need not be unpacked.

Not the libraries `webdataset` (reads shards in sequence) and `wids`: see
`training.sources.tar_samples`.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from model.refusal import Refusal
from training.data.stored_picture import StoredPicture


@dataclasses.dataclass(frozen=True)
class TarPicture:
    """The byte range of a picture in an uncompressed tar file.

    Attributes:
        tar: The tar file.
        tar_size: Its size in bytes when the data set was made. A file of another size has changed
            since then, and the byte range no longer holds the picture.
        name: Of the picture in the tar file, for messages.
        offset: Of the picture's first byte.
        size: Of the picture, in bytes.
    """

    tar: Path
    tar_size: int
    name: str
    offset: int
    size: int

    def read_bytes(self) -> bytes:
        """The bytes of the picture file.

        Raises:
            OSError: The tar file cannot be read.
            Refusal: The tar file has another size than when the data set was made.
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
        """Of the tar file: its size and times change whenever the picture does."""
        return self.tar.stat()

    def __str__(self) -> str:
        """Tar file and name, for messages."""
        return f"{self.tar}: {self.name}"


#: A picture: a file, a byte range of a tar file, or a row of a table.
PictureFile = Path | TarPicture | StoredPicture
