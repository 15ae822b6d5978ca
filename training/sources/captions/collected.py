"""The entries of all caption files, put together by picture.

Texts are in temporary files. Memory holds about 50 bytes for each entry and 30 for each caption,
so about 80 MB for a million lines. Pictures and captions are told apart by 64-bit hashes: two of a
million have the same by accident once in thirty million data sets.
"""

from __future__ import annotations

import dataclasses
from array import array

import numpy as np

from training.data.caption_index import Texts
from training.sources.captions.entry import Entry
from training.sources.faults import Faults


@dataclasses.dataclass(frozen=True)
class Collected:
    """A picture with what the caption files say of it.

    Attributes:
        path: Of the picture file, or of the table that holds the picture, within the folder.
        row: Of the picture in that table; None for a picture file.
        where: The first entry that names it.
        split: None if none is given.
        image_id: None if none is given.
    """

    path: str
    row: int | None
    where: str
    split: str | None
    image_id: int | None

    def __str__(self) -> str:
        """For messages."""
        return self.path if self.row is None else f"{self.path}#{self.row}"


class CollectedPictures:
    """All pictures that captions name, by number in the order of their first captions."""

    def __init__(self) -> None:
        self._keys, self._splits = array("q"), array("q")
        self._ids, self._rows = array("q"), array("q")
        self._repeats = array("b")
        self._caption_entries, self._caption_keys = array("q"), array("q")
        self._paths, self._wheres, self._captions = Texts(), Texts(), Texts()
        self._split_names: dict[str | None, int] = {None: 0}
        self._first = np.zeros(0, np.int64)  # first entry of each picture

    def add(self, entry: Entry, path: str, repeats: bool = False) -> None:
        """Add an entry.

        Args:
            entry: The entry.
            path: Of its picture within the folder, as in `Collected`.
            repeats: Whether a picture may have the same caption twice.
        """
        number = len(self._keys)
        key = hash(path if entry.row is None else f"{path}#{entry.row}")
        self._keys.append(key)
        self._splits.append(self._split_names.setdefault(entry.split, len(self._split_names)))
        self._ids.append(-1 if entry.image_id is None else entry.image_id)
        self._rows.append(-1 if entry.row is None else entry.row)
        self._repeats.append(repeats)
        self._paths.append(path)
        self._wheres.append(entry.where)
        for text in entry.captions:
            self._caption_entries.append(number)
            self._caption_keys.append(hash((key, text)))
            self._captions.append(text)

    def group(self, faults: Faults) -> None:
        """Put the entries of each picture together; call it once, after the last `add`.

        Args:
            faults: One line is added for each entry that contradicts an earlier one of its picture,
                and for each caption that its picture has already.
        """
        for texts in (self._paths, self._wheres, self._captions):
            texts.flush()
        keys = np.asarray(self._keys, np.int64)
        _, first, picture = np.unique(keys, return_index=True, return_inverse=True)
        order = np.argsort(first)  # by first appearance
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        self._first, picture = first[order], rank[picture]
        sound = self._consistent(picture, faults)
        entries = np.asarray(self._caption_entries, np.int64)
        kept = sound[entries] & self._unrepeated(entries, sound, faults)
        rows = np.flatnonzero(kept)
        owners = picture[entries[rows]]
        by_picture = np.argsort(owners, kind="stable")
        self._caption_rows = rows[by_picture]
        self._ends = np.searchsorted(owners[by_picture], np.arange(len(first) + 1))
        self.has_splits = any(self._splits)
        ids = np.asarray(self._ids, np.int64)[self._first]
        self.has_ids = bool(len(ids) and (ids >= 0).all() and len(np.unique(ids)) == len(ids))
        self.lost_ids = not self.has_ids and bool((ids >= 0).any())

    def _consistent(self, picture: np.ndarray, faults: Faults) -> np.ndarray:
        """Which entries agree with the first one of their picture, bool [N]."""
        splits = np.asarray(self._splits, np.int64)
        ids = np.asarray(self._ids, np.int64)
        with_split = bool(splits.any())
        first = self._first[picture]
        unsplit = with_split & (splits == 0)
        wrong = unsplit | (splits != splits[first]) | (ids != ids[first])
        names = {number: name for name, number in self._split_names.items()}
        for entry in np.flatnonzero(wrong).tolist():
            known = int(first[entry])
            path, where = self._paths[entry], self._wheres[entry]
            if unsplit[entry]:
                faults.append(f"{where}: {path} has no split, though others have one")
            elif ids[entry] != ids[known]:
                faults.append(f"{where}: {path} is already named by {self._wheres[known]}")
            else:
                faults.append(
                    f"{where}: {path} is in split {names[int(splits[entry])]!r}, but in "
                    f"{names[int(splits[known])]!r} in {self._wheres[known]}"
                )
        return ~wrong

    def _unrepeated(self, entries: np.ndarray, sound: np.ndarray, faults: Faults) -> np.ndarray:
        """Which captions are there for the first time, or may be there again, bool [C]."""
        keys = np.asarray(self._caption_keys, np.int64)
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        before = first[inverse]
        may = np.asarray(self._repeats, bool)[entries]
        again = (before != np.arange(len(keys))) & ~may
        for row in np.flatnonzero(again & sound[entries]).tolist():
            faults.append(
                f"{self._wheres[int(entries[row])]}: repeats file and caption of "
                f"{self._wheres[int(entries[before[row]])]}"
            )
        return ~again

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self._first)

    def __getitem__(self, number: int) -> Collected:
        """A picture."""
        entry = int(self._first[number])
        names = list(self._split_names)
        row, image_id = self._rows[entry], self._ids[entry]
        return Collected(
            self._paths[entry],
            None if row < 0 else row,
            self._wheres[entry],
            names[self._splits[entry]],
            None if image_id < 0 else image_id,
        )

    def captions(self, number: int) -> list[str]:
        """Captions of a picture; none where each of them had a fault."""
        rows = self._caption_rows[self._ends[number] : self._ends[number + 1]]
        return [self._captions[int(row)] for row in rows]

    def captioned(self) -> np.ndarray:
        """Numbers of the pictures that have a caption, int64."""
        return np.flatnonzero(np.diff(self._ends))

    def path_keys(self) -> np.ndarray:
        """`hash` of the path of each picture file, int64 [N]."""
        return np.asarray(self._keys, np.int64)[self._first]

    def split_counts(self) -> dict[str, int]:
        """Number of pictures in each split that is given."""
        numbers = np.asarray(self._splits, np.int64)[self._first]
        counts = np.bincount(numbers, minlength=len(self._split_names)).tolist()
        return {name: n for name, n in zip(self._split_names, counts, strict=True) if name and n}
