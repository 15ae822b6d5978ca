"""COCO captions, read entry by entry.

    {"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}

VizWiz-Captions (captions that are canned or rejected) and nocaps (domains) have this form too.
Memory holds two numbers for each image and each annotation; file names are in a temporary file.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model.refusal import Refusal
from training.data.caption_index import Texts
from training.data.dataset import MAX_ID
from training.data.id_index import IdIndex
from training.data.json_members import members
from training.data.splits import canonical_split
from training.sources.captions.entry import Entry, Reading
from training.sources.faults import clean_text, short_json

#: Annotations that are looked up at a time.
CHUNK = 4096
#: Words for what is left out.
CANNED = "captions that say that the picture cannot be described (is_precanned, is_rejected)"
UNCAPTIONED = "images of the file that have no caption"
DOMAINS = ("in-domain", "near-domain", "out-domain")


def read_coco(file: Path, reading: Reading) -> Iterator[Entry]:
    """The entries of a file of COCO captions, one for each annotation.

    The ids of its images are those of the data set if they are whole numbers.

    Raises:
        Refusal: It is not JSON, or has no lists `images` and `annotations`.
    """
    images = _Images(file, reading)
    missing, early = {"images", "annotations"}, False
    for name, value in image_lists(file):
        missing.discard(name)
        if name == "images":
            images.read(value)
        elif name == "annotations" and "images" not in missing:
            yield from images.annotations(value)
        elif name == "annotations":
            early = True  # they come before the images, so they are read again
    if missing:
        raise Refusal(f"{file} is not COCO captions: it must have lists `images` and `annotations`")
    if early:
        for name, value in image_lists(file):
            if name == "annotations":
                yield from images.annotations(value)
    images.end()


def image_lists(file: Path) -> Iterator[tuple[str, Iterator[Any]]]:
    """The lists `images` and `annotations` of a file."""
    try:
        for name, value in members(file):
            if name in ("images", "annotations"):
                if not isinstance(value, Iterator):
                    raise TypeError
                yield name, value
    except TypeError:
        raise Refusal(
            f"{file} is not COCO captions: it must have lists `images` and `annotations`"
        ) from None


class _Images:
    """The images of a COCO file, and what its annotations say of them."""

    def __init__(self, file: Path, reading: Reading) -> None:
        self._name = reading.name(file)
        self._reading = reading
        self._keys = array("q")  # hash of each id
        self._ids = array("q")  # each id, -1 for one that is no whole number
        self._numbers = array("q")  # index of each image in the file
        self._names, self._splits = Texts(), Texts()
        self._index = IdIndex([])
        self._captioned = np.zeros(0, bool)
        self._own, self._own_numbers = array("q"), array("q")  # of each annotation

    def read(self, images: Iterator[Any]) -> None:
        """Read the list of images."""
        for number, image in enumerate(images):
            where = f"{self._name} images[{number}]"
            try:
                image_id = _id(image, "id")
                split = image.get("split")
                split = "" if split is None else canonical_split(clean_text(split, "split"))
                if (domain := image.get("domain")) in DOMAINS:
                    split = f"test_{domain.replace('-', '_')}"
                name = clean_text(image.get("file_name"), "file_name")
            except ValueError as error:
                self._reading.faults.append(f"{where}: {error}")
                continue
            self._keys.append(hash(str(image_id)))
            self._ids.append(image_id if isinstance(image_id, int) else -1)
            self._numbers.append(number)
            self._names.append(name)
            self._splits.append(split)
        self._names.flush()
        self._splits.flush()
        self._index = IdIndex(self._keys)
        self._captioned = np.zeros(len(self._keys), bool)
        for row, _ in self._repeated("images", self._keys, self._numbers):
            self._captioned[row] = True  # it is no image without a caption

    def _repeated(
        self, name: str, keys: Sequence[int], numbers: Sequence[int]
    ) -> list[tuple[int, int]]:
        """Add a fault for each id of a list that is there before; return the indexes of both."""
        sorted_keys = np.asarray(keys, np.int64)
        order = np.argsort(sorted_keys, kind="stable")
        sorted_keys = sorted_keys[order]
        again = np.flatnonzero(sorted_keys[1:] == sorted_keys[:-1]) + 1
        pairs = [(int(order[index]), int(order[index - 1])) for index in again]
        for row, before in pairs:
            self._reading.faults.append(
                f"{self._name} {name}[{numbers[row]}]: id is already used by "
                f"{self._name} {name}[{numbers[before]}]"
            )
        return pairs

    def annotations(self, annotations: Iterator[Any]) -> Iterator[Entry]:
        """The entries of the list of annotations."""
        first = 0
        # Looking up one id with NumPy costs as much as looking up hundreds.
        while chunk := list(itertools.islice(annotations, CHUNK)):
            ids: list[int | str | None] = []
            for number, annotation in enumerate(chunk, start=first):
                try:
                    ids.append(_id(annotation, "image_id"))
                    if "id" in annotation:
                        self._own.append(hash(str(_id(annotation, "id"))))
                        self._own_numbers.append(number)
                except ValueError as error:
                    self._fault(number, str(error))
                    ids[number - first :] = [None]
            rows = self._index.rows([hash(str(image_id)) for image_id in ids]).tolist()
            for number, (annotation, image_id, row) in enumerate(
                zip(chunk, ids, rows, strict=True), start=first
            ):
                if image_id is not None and (entry := self._entry(number, annotation, row)):
                    yield entry
            first += len(chunk)

    def _entry(self, number: int, annotation: dict[str, Any], row: int) -> Entry | None:
        """The entry of an annotation of the image in this row; None if it gives no caption."""
        if row < 0:
            self._fault(number, f"image_id {annotation['image_id']} is no image of the file")
            return None
        if annotation.get("is_precanned") or annotation.get("is_rejected"):
            self._reading.left_out[CANNED] += 1
            return None
        where = f"{self._name} annotations[{number}]"
        texts = self._reading.clean(where, [annotation.get("caption")], repeats=True)
        self._captioned[row] = True  # or its fault is named
        if not texts:
            return None
        image_id = self._ids[row] if self._ids[row] >= 0 else None
        return Entry(where, self._names[row], texts, self._splits[row] or None, image_id)

    def _fault(self, number: int, what: str) -> None:
        self._reading.faults.append(f"{self._name} annotations[{number}]: {what}")

    def end(self) -> None:
        """Count the images that have no annotation, and check the ids of the annotations."""
        self._repeated("annotations", self._own, self._own_numbers)
        if missing := int((~self._captioned).sum()):
            self._reading.left_out[UNCAPTIONED] += missing


def _id(item: Any, name: str) -> int | str:
    """The id of an image or an annotation: a whole number, or a text.

    Raises:
        ValueError: It is neither.
    """
    if not isinstance(item, dict):
        raise ValueError("must be an object in braces")
    value = item.get(name)
    if isinstance(value, str) and value.strip():
        return value.strip()
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_ID:
        return value
    raise ValueError(
        f"{name} is {short_json(value)}; it must be a whole number, 0 or more, or a text"
    )
