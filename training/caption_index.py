"""The captions and file names of a data set, in memory as flat arrays.

Python needs some 200 bytes for a caption of 50 as an entry of a dict of lists of text, and a
kilobyte while JSON is parsed. Here texts stand one behind the other in one buffer of UTF-8, and
each is made a `str` when it is asked for; the parser hands over each object as soon as it is read.
"""

from __future__ import annotations

import json
import mmap
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model.refusal import Refusal
from training.id_index import IdIndex
from training.tar_picture import PictureFile, TarPicture

#: What stands in the lists `images` and `annotations` for what was taken out of them.
_IMAGE, _CAPTION = object(), object()


class Texts:
    """Texts by number, kept as bytes."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._ends = array("q", [0])

    def append(self, text: str) -> None:
        """Add one; half of a surrogate pair is refused by Python."""
        self._bytes += text.encode()
        self._ends.append(len(self._bytes))

    def __len__(self) -> int:
        """Number of texts."""
        return len(self._ends) - 1

    def __getitem__(self, number: int) -> str:
        """One text."""
        return self._bytes[self._ends[number] : self._ends[number + 1]].decode()


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
        self._order = np.argsort(places, kind="stable")
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
    """Takes images and captions out of COCO captions while they are parsed."""

    def __init__(self) -> None:
        self.image_ids, self.names = array("q"), Texts()
        self.owners, self.captions = array("q"), Texts()
        self.places = array("q")

    def take(self, fields: dict[str, Any]) -> Any:
        """Called with each object of the JSON; what it gives back stands there instead."""
        if "image_id" in fields and "caption" in fields:
            self.owners.append(fields["image_id"])
            if not isinstance(fields["caption"], str):
                raise ValueError(f"image {fields['image_id']} has a caption that is no text")
            self.captions.append(fields["caption"])
            return _CAPTION
        if "id" in fields and "file_name" in fields:
            self.image_ids.append(fields["id"])
            self.names.append(fields["file_name"])
            inside = "tar" in fields
            self.places.extend([fields[n] if inside else -1 for n in ("tar", "offset", "size")])
            return _IMAGE
        return fields


def _text(file: Path) -> str:
    """A file as text; its bytes are mapped, so that they do not take memory a second time."""
    with file.open("rb") as opened:
        if not os.fstat(opened.fileno()).st_size:
            return ""
        with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return str(content, "utf-8")


def read_coco(file: Path) -> tuple[PictureFiles, Captions, str]:
    """Pictures, captions and the description (may be empty) of a file in COCO's captions format.

    Args:
        file: Beside it is the folder `images` with the pictures.

    Raises:
        Refusal: It is no such file, or contradicts itself.
        FileNotFoundError: It is not there.
    """
    reader = _Reader()
    try:
        coco = json.loads(_text(file), object_hook=reader.take)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(f"{file} is not JSON: {error}") from None
    except (ValueError, TypeError, AttributeError, OverflowError, KeyError) as error:
        raise Refusal(f"{file} is not COCO captions: {error}") from None
    try:
        for name, taken, needed in (
            ("images", _IMAGE, ("id", "file_name")),
            ("annotations", _CAPTION, ("image_id", "caption")),
        ):
            for item in coco[name]:
                if item is not taken:
                    raise KeyError(next(key for key in needed if key not in item))
        info = coco.get("info")
        description = str(info.get("description") or "") if isinstance(info, dict) else ""
        tars = [(Path(tar["file"]), int(tar["size"])) for tar in coco.get("tars", ())]
    except (KeyError, TypeError, StopIteration) as error:
        raise Refusal(f"{file} is not COCO captions: missing or unknown {error}") from None
    images, owners = IdIndex(reader.image_ids), np.array(reader.owners, np.int64)
    if (twice := images.repeated()) is not None:
        raise Refusal(f"{file} names image {twice} more than once")
    places = np.array(reader.places, np.int64).reshape(-1, 3)
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
