"""The captions and file names of a data set. The texts are on disk; memory holds their offsets.

In a dict of lists of `str`, a caption of 50 characters takes about 200 bytes of memory, and about
a kilobyte while its JSON is parsed. Here the JSON is read entry by entry, all texts are written to
one temporary file as UTF-8, and a text is read from that file each time it is needed. Memory
holds two numbers for each caption.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import weakref
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from model.refusal import Refusal
from training.data.id_index import IdIndex
from training.data.json_members import members
from training.data.tar_picture import PictureFile, TarPicture


class Texts:
    """A list of texts in a temporary file in the folder TMPDIR, deleted with the list."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 -- closed by `finalize`
        weakref.finalize(self, self._file.close)
        self._ends = array("q", [0])

    def append(self, text: str) -> None:
        """Add a text at the end.

        Raises:
            UnicodeEncodeError: It holds half of a surrogate pair.
        """
        self._ends.append(self._ends[-1] + self._file.write(text.encode()))

    def flush(self) -> None:
        """Make all texts readable; call it once, after the last `append`."""
        self._file.flush()

    def __getitem__(self, index: int) -> str:
        """The text at this index."""
        start, end = self._ends[index], self._ends[index + 1]
        return os.pread(self._file.fileno(), end - start, start).decode()


class PictureFiles(Mapping[int, PictureFile]):
    """Image id -> its picture file, in the order of captions.json.

    Args:
        folder: The folder of the pictures that are not in a tar file.
        images: Ids of all images, [N].
        names: File name of each image.
        tars: Each tar file with its size in bytes.
        positions: Of each image the index of its tar file, the offset of its first byte and its
            size in bytes; int64 [N, 3], all -1 for an image that is not in a tar file.
        digests: Of each image `digest` of its SHA-256, or -1 if captions.json has none; int64 [N].
    """

    def __init__(
        self,
        folder: Path,
        images: IdIndex,
        names: Texts,
        tars: Sequence[tuple[Path, int]],
        positions: np.ndarray,
        digests: np.ndarray,
    ) -> None:
        self._folder = folder
        self._images = images
        self._names = names
        self._tars = tars
        self._positions = positions
        self._digests = digests

    def __getitem__(self, image_id: int) -> PictureFile:
        """The picture file of this image."""
        row = _row(self._images, image_id)
        tar, offset, size = self._positions[row].tolist()
        if tar < 0:
            return self._folder / self._names[row]
        file, tar_size = self._tars[tar]
        return TarPicture(file, tar_size, self._names[row], offset, size)

    def digests(self, image_ids: Sequence[int]) -> np.ndarray:
        """`digest` of each of these images, int64 [N]; -1 for one that cannot be read.

        A picture whose SHA-256 is not in captions.json is read.
        """
        found = self._digests[self.rows(image_ids)]
        missing = np.flatnonzero(found < 0)
        console = Console(stderr=True)
        bar = track(missing, "reading pictures", console=console, disable=not len(missing))
        for index in map(int, bar):
            with contextlib.suppress(OSError, Refusal):
                content = self[image_ids[index]].read_bytes()
                found[index] = digest(hashlib.sha256(content).hexdigest())
        return found

    def rows(self, image_ids: Sequence[int]) -> np.ndarray:
        """Index of each image in captions.json, int64; -1 for an image that is not in it."""
        return self._images.rows(image_ids)

    def __iter__(self) -> Iterator[int]:
        """Image ids, in the order of captions.json."""
        return map(int, self._images.ids)

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self._images.ids)


def digest(sha256: str) -> int:
    """The first 63 bits of a SHA-256 in hex: enough to find equal files among billions.

    Raises:
        ValueError: It is not 64 hexadecimal digits.
    """
    if len(sha256) != 64:
        raise ValueError(f"sha256 has {len(sha256)} digits; it must have 64")
    return int(sha256[:16], 16) >> 1


class Captions(Mapping[int, list[str]]):
    """Image id -> its captions, in the order of captions.json.

    Args:
        images: Ids of all images, [N].
        caption_images: Image id of each caption, int64 [C]; each is one of `images`.
        texts: The captions.
    """

    def __init__(self, images: IdIndex, caption_images: np.ndarray, texts: Texts) -> None:
        self._images = images
        self._texts = texts
        rows = images.rows(caption_images)
        # The captions of image row r are self._order[self._first[r] : self._first[r + 1]].
        self._order = np.argsort(rows, kind="stable").astype(np.min_scalar_type(len(rows)))
        self._first = np.searchsorted(rows[self._order], np.arange(len(images.ids) + 1))

    def __getitem__(self, image_id: int) -> list[str]:
        """Captions of this image."""
        row = _row(self._images, image_id)
        own = self._order[self._first[row] : self._first[row + 1]]
        return [self._texts[index] for index in own.tolist()]

    def __iter__(self) -> Iterator[int]:
        """Image ids, in the order of captions.json."""
        return map(int, self._images.ids)

    def __len__(self) -> int:
        """Number of images."""
        return len(self._images.ids)


def _row(images: IdIndex, image_id: int) -> int:
    row = int(images.rows(image_id))
    if row < 0:
        raise KeyError(image_id)
    return row


class _Reader:
    """Collects images and captions while a file of COCO captions is read."""

    def __init__(self) -> None:
        self.image_ids, self.names = array("q"), Texts()
        self.caption_images, self.captions = array("q"), Texts()
        self.positions = array("q")  # three numbers an image, see `PictureFiles`
        self.digests = array("q")

    def image(self, fields: dict[str, Any]) -> None:
        """Add an entry of `images`."""
        self.image_ids.append(fields["id"])
        self.names.append(fields["file_name"])
        self.digests.append(digest(fields["sha256"]) if "sha256" in fields else -1)
        in_tar = "tar" in fields
        self.positions.extend([fields[n] if in_tar else -1 for n in ("tar", "offset", "size")])

    def caption(self, fields: dict[str, Any]) -> None:
        """Add an entry of `annotations`."""
        self.caption_images.append(fields["image_id"])
        if not isinstance(fields["caption"], str):
            raise ValueError(f"image {fields['image_id']} has a caption that is no text")
        self.captions.append(fields["caption"])


def read_coco(file: Path) -> tuple[PictureFiles, Captions, str]:
    """Read a file in COCO's captions format.

    Args:
        file: The pictures are in the folder `images` beside it, or in the tar files it names.

    Returns:
        The pictures, the captions, and the description (may be empty).

    Raises:
        Refusal: It is not such a file, or contradicts itself.
        FileNotFoundError: There is no such file.
    """
    reader = _Reader()
    missing, description = {"images", "annotations"}, ""
    tars: list[tuple[Path, int]] = []
    try:
        for name, value in members(file):
            missing.discard(name)
            if name == "images":
                for image in value:
                    reader.image(image)
            elif name == "annotations":
                for annotation in value:
                    reader.caption(annotation)
            elif name == "tars":
                tars = [(Path(tar["file"]), int(tar["size"])) for tar in value]
            elif name == "info" and isinstance(value, dict):
                description = str(value.get("description") or "")
        if missing:
            raise KeyError(max(missing))
        reader.names.flush()
        reader.captions.flush()
    except Refusal:
        raise
    except KeyError as error:
        raise Refusal(f"{file} is not COCO captions: missing or unknown {error}") from None
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise Refusal(f"{file} is not COCO captions: {error}") from None
    images = IdIndex(reader.image_ids)
    if (repeated := images.repeated()) is not None:
        raise Refusal(f"{file} names image {repeated} more than once")
    positions = np.asarray(reader.positions, np.int64).reshape(-1, 3)
    if len(positions) and not (last := positions[:, 0].max()) < len(tars):
        raise Refusal(f"{file} has {len(tars)} tars, but an image in number {last}")
    caption_images = np.asarray(reader.caption_images, np.int64)
    unknown = caption_images[images.rows(caption_images) < 0]
    if len(unknown):
        raise Refusal(f"{file} is not COCO captions: missing or unknown {unknown[0]}")
    return (
        PictureFiles(
            file.parent / "images",
            images,
            reader.names,
            tars,
            positions,
            np.asarray(reader.digests, np.int64),
        ),
        Captions(images, caption_images, reader.captions),
        " ".join(description.split()),
    )
