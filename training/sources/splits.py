"""Assigns pictures to splits at random, where the source does not give their splits."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Callable, Container, Mapping
from typing import Any

from model.refusal import Refusal
from training.data.caption_index import digest
from training.sources.settings import SplitFractions

#: Pictures that are remembered for each split that is still empty.
CANDIDATES = 32


def split_fractions(setting: str, fractions: SplitFractions) -> dict[str, float]:
    """The fractions of a source's settings by split name.

    Args:
        setting: Full name of the setting, for the message.
        fractions: Of all pictures, for each split.

    Raises:
        Refusal: A fraction is negative, or they do not add up to 1.
    """
    by_split: dict[str, float] = dataclasses.asdict(fractions)
    if abs(sum(by_split.values()) - 1) > 1e-6 or min(by_split.values()) < 0:
        raise Refusal(f"{setting} are {by_split}; they must be 0 or more and add up to 1")
    return by_split


class DrawnSplits:
    """Draws the split of each picture of a data set, and fills splits that would stay empty.

    A hash of a picture's key takes the place of a random number, so the split of a picture depends
    on its key and the fractions alone, and pictures that are added later do not change it. A small
    data set may leave a split without a picture. Then `moves` gives it the picture whose number is
    nearest to the numbers of that split. Only such a picture, at most one a split, may go back to
    its own split when pictures are added.

    Args:
        fractions: Of all pictures, by split name.
    """

    def __init__(self, fractions: Mapping[str, float]) -> None:
        self._fractions = {split: fraction for split, fraction in fractions.items() if fraction}
        self._counts = dict.fromkeys(self._fractions, 0)
        # For each split without a picture the nearest ones: distance, image id, digest, own split.
        self._nearest: dict[str, list[tuple[float, int, int, str]]] = {
            split: [] for split in self._fractions
        }

    def split(self, key: str) -> str:
        """The split that is drawn for a picture.

        Args:
            key: Identifies the picture and the seed.
        """
        remainder = _number(key)
        for split, fraction in self._fractions.items():
            remainder -= fraction
            if remainder < 0:
                return split
        # The fractions may add up to slightly less than 1 (rounding of floats).
        return max(self._fractions, key=lambda split: self._fractions[split])

    def add(self, key: str, image_id: int, sha256: str) -> None:
        """Count a picture that is used.

        Args:
            key: As for `split`.
            image_id: Of the picture.
            sha256: Of its file, in hex.
        """
        own, number, start = self.split(key), _number(key), 0.0
        self._counts[own] += 1
        for split, fraction in self._fractions.items():
            if not self._counts[split]:
                distance = max(start - number, number - start - fraction)
                near = self._nearest[split]
                near.append((distance, image_id, digest(sha256), own))
                near.sort()
                del near[CANDIDATES:]
            start += fraction

    def empty(self) -> list[str]:
        """The splits to which no picture came though their fraction is above 0."""
        return [split for split, count in self._counts.items() if not count]

    def moves(self, repeated: Container[int]) -> dict[int, str]:
        """The pictures that fill empty splits; call it after the last `add`.

        Args:
            repeated: `digest` of pictures that are there more than once. They are not moved, so
                that equal pictures stay in the same split.

        Returns:
            Image id -> split. A split that pictures come from keeps at least one. A split stays
            empty where there are too few pictures.
        """
        counts, moved = dict(self._counts), dict[int, str]()
        for split in self.empty():
            for _, image_id, content, own in self._nearest[split]:
                if counts[own] > 1 and image_id not in moved and content not in repeated:
                    moved[image_id] = split
                    counts[own] -= 1
                    break
        return moved


def print_moves(moves: Mapping[str, str]) -> None:
    """Print which picture fills which split, and what pictures that are added later change."""
    for name, split in moves.items():
        print(
            f"note: no picture came to {split} at random, so it gets the nearest one, {name}; when "
            "you add pictures, that one may go back to another split",
            file=sys.stderr,
        )


def _number(key: str) -> float:
    """A number in [0, 1) that depends on the key alone."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) / 2**64


class KnownPictures:
    """Finds picture files with the same bytes in different splits.

    Scores on a picture that was trained on under another name would mislead. Memory holds two
    numbers for each picture.

    Args:
        describe: What messages call a picture, by what `check` got as `where`.
    """

    def __init__(self, describe: Callable[[Any], str] = str) -> None:
        self._describe = describe
        self._first: dict[int, tuple[str, Any]] = {}
        #: `digest` of each picture that was given more than once.
        self.repeated: set[int] = set()

    def check(self, sha256: str, split: str, where: Any) -> None:
        """Compare a picture with those before it.

        Args:
            sha256: Of its file, in hex.
            split: Its split.
            where: What the message on a later picture calls this one.

        Raises:
            ValueError: A picture with the same bytes is in another split.
        """
        content = digest(sha256)
        if content not in self._first:
            self._first[content] = (split, where)
            return
        self.repeated.add(content)
        other, first = self._first[content]
        if other != split:
            raise ValueError(
                f"is in split {split!r}, but has the same bytes as {self._describe(first)} in "
                f"split {other!r}; remove one of the two, or give both the same split"
            )
