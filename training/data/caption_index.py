"""The captions and file names of a data set; memory holds where each stands, not the texts.

Python needs some 200 bytes for a caption of 50 as an entry of a dict of lists of text, and a
kilobyte while JSON is parsed. Here the parser hands over each object as soon as it is read, texts
stand one behind the other as UTF-8 in a file aside, and each is made a `str` when it is asked for.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model.refusal import Refusal
from training.data.id_index import IdIndex
from training.data.json_members import members
from training.data.tar_picture import PictureFile, TarPicture


class Texts:
    """Texts by number, in a file without a name in the folder for temporary files (TMPDIR)."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 -- it lives as long as this
        weakref.finalize(self, self._file.close)
        self._ends = array("q", [0])

    def append(self, text: str) -> None:
        """Add one; half of a surrogate pair is refused by Python."""
        self._ends.append(self._ends[-1] + self._file.write(text.encode()))

    def flush(self) -> None:
        """After the last one, before any is asked for."""
        self._file.flush()

    def __getitem__(self, number: int) -> str:
        """One text."""
        start, end = self._ends[number], self._ends[number + 1]
        return os.pread(self._file.fileno(), end - start, start).decode()


class PictureFiles(Mapping[int, PictureFile]):
    """Image id -> its picture, made when asked for; in file order.

    Args:
        folder: Where names are.
        images: All images.
        names: Of each image.
        tars: Tar files with their sizes.
        places: Tar file, first byte and bytes of each image, [N, 3]; -1 for a file of its own.
    """

    def __init__(
        self,
        folder: Path,
        images: IdIndex,
        names: Texts,
        tars: Sequence[tuple[Path, int]],
        places: np.ndarray,
    ) -> None:
        self._folder = folder
        self._images = images
        self._names = names
        self._tars = tars
        self._places = places

    def __getitem__(self, image_id: int) -> PictureFile:
        """Where the picture is."""
        number = _place(self._images, image_id)
        tar, offset, size = self._places[number].tolist()
        if tar < 0:
            return self._folder / self._names[number]
        return TarPicture(*self._tars[tar], self._names[number], offset, size)

    def places(self, image_ids: Sequence[int]) -> np.ndarray:
        """Number of each image in the file, -1 for one that is not in it."""
        return self._images.places(image_ids)

    def __iter__(self) -> Iterator[int]:
        """Image ids."""
        return map(int, self._images.ids)

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self._images.ids)


class Captions(Mapping[int, list[str]]):
    """Image id -> its captions in file order, made when asked for.

    Args:
        images: All images; those of `owners` are among them.
        owners: Image id of each caption, [C].
        texts: The captions.
    """

    def __init__(self, images: IdIndex, owners: np.ndarray, texts: Texts) -> None:
        self._images = images
        self._texts = texts
        places = images.places(owners)
        self._order = np.argsort(places, kind="stable").astype(np.min_scalar_type(len(places)))
        self._first = np.searchsorted(places[self._order], np.arange(len(images.ids) + 1))

    def __getitem__(self, image_id: int) -> list[str]:
        """Captions of this image."""
        place = _place(self._images, image_id)
        own = self._order[self._first[place] : self._first[place + 1]]
        return [self._texts[number] for number in own.tolist()]

    def __iter__(self) -> Iterator[int]:
        """Image ids."""
        return map(int, self._images.ids)

    def __len__(self) -> int:
        """Number of images."""
        return len(self._images.ids)


def _place(images: IdIndex, image_id: int) -> int:
    place = int(images.places(image_id))
    if place < 0:
        raise KeyError(image_id)
    return place


class _Reader:
    """Takes images and captions out of COCO captions while they are read."""

    def __init__(self) -> None:
        self.image_ids, self.names = array("q"), Texts()
        self.owners, self.captions = array("q"), Texts()
        self.places = array("q")

    def image(self, fields: dict[str, Any]) -> None:
        """Take an entry of `images`."""
        self.image_ids.append(fields["id"])
        self.names.append(fields["file_name"])
        inside = "tar" in fields
        self.places.extend([fields[n] if inside else -1 for n in ("tar", "offset", "size")])

    def caption(self, fields: dict[str, Any]) -> None:
        """Take an entry of `annotations`."""
        self.owners.append(fields["image_id"])
        if not isinstance(fields["caption"], str):
            raise ValueError(f"image {fields['image_id']} has a caption that is no text")
        self.captions.append(fields["caption"])


def read_coco(file: Path) -> tuple[PictureFiles, Captions, str]:
    """Pictures, captions and the description (may be empty) of a file in COCO's captions format.

    Args:
        file: Beside it is the folder `images` with the pictures.

    Raises:
        Refusal: It is no such file, or contradicts itself.
        FileNotFoundError: It is not there.
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
    images, owners = IdIndex(reader.image_ids), np.asarray(reader.owners, np.int64)
    if (twice := images.repeated()) is not None:
        raise Refusal(f"{file} names image {twice} more than once")
    places = np.asarray(reader.places, np.int64).reshape(-1, 3)
    if len(places) and not places[:, 0].max() < len(tars):
        raise Refusal(f"{file} has {len(tars)} tars, but an image in number {places[:, 0].max()}")
    unknown = owners[images.places(owners) < 0]
    if len(unknown):
        raise Refusal(f"{file} is not COCO captions: missing or unknown {unknown[0]}")
    return (
        PictureFiles(file.parent / "images", images, reader.names, tars, places),
        Captions(images, owners, reader.captions),
        " ".join(description.split()),
    )
