"""The pictures of a source that can be used, with about 60 bytes of memory for each."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from training.sources.splits import KnownPictures


class CheckedPictures(Sequence[tuple[int, int, str, str]]):
    """Number, image id, split and SHA-256 of each picture that was decoded without a fault.

    Args:
        known: Of the same pictures.

    Attributes:
        known: As given.
        numbers: Number of each picture in its source.
        size: Of all picture files together, in bytes.
    """

    def __init__(self, known: KnownPictures) -> None:
        self.known = known
        self.numbers = array("q")
        self.size = 0
        self._ids, self._splits = array("q"), array("b")
        self._names: dict[str, int] = {}
        self._hashes = bytearray()

    def add(self, number: int, image_id: int, split: str, sha256: str, size: int) -> None:
        """Add a picture.

        Args:
            number: In its source.
            image_id: In the data set.
            split: Its split.
            sha256: Of its file, in hex.
            size: Of its file, in bytes.
        """
        self.numbers.append(number)
        self._ids.append(image_id)
        self._splits.append(self._names.setdefault(split, len(self._names)))
        self._hashes += bytes.fromhex(sha256)
        self.size += size

    def splits(self) -> list[str]:
        """Names of the splits that have a picture."""
        return list(self._names)

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.numbers)

    def __getitem__(self, index: int) -> tuple[int, int, str, str]:  # type: ignore[override]
        """Number, image id, split and SHA-256 in hex of a picture."""
        split = list(self._names)[self._splits[index]]  # an IndexError ends an iteration
        sha256 = self._hashes[32 * index : 32 * index + 32].hex()
        return self.numbers[index], self._ids[index], split, sha256
