"""Finds the picture files that captions name, exactly or else loosely.

A name is first taken as it is written: a path within the folder of the caption file or within the
whole folder, or within the folder `images` of either. Names that lead nowhere are then looked for
among all picture files below: with other case, accents (NFC and NFD) or slashes, in another folder,
without the extension, or by the number at their end. Such a match must be the only one. It is
counted, and the command says how many there were.

Memory holds five numbers for each picture file; names are in a temporary file.
"""

from __future__ import annotations

import functools
import os
import re
import stat
import unicodedata
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from training.data.caption_index import Texts
from training.data.id_index import IdIndex
from training.sources.picture_extensions import PICTURE_EXTENSIONS

#: Ways of matching, in words.
SPELLING = "names differ in case, accents or slashes"
FOLDER = "pictures lie in another folder than their names say"
EXTENSION = "names lack the extension"
NUMBER = "pictures were found by the number in their names"

#: Names matched loosely that are remembered.
REMEMBERED = 50_000
#: Folders of pictures that names need not say.
IMAGE_FOLDERS = ("images", "Images")
_DIGITS = re.compile(r"(\d+)$")


class PictureNames:
    """The picture files of a folder.

    Args:
        root: The folder, with links resolved.
    """

    def __init__(self, root: Path) -> None:
        self._loose: dict[str, array[int]] = {}  # way of matching -> hash of each name
        self._root = str(root)
        self._real: dict[str, str] = {}  # folder -> the same with links resolved
        self._last: tuple[tuple[str, str], str] | None = None
        self._loose_of: dict[int, str] = {}  # the last names that were matched loosely
        self._names: Texts | None = None
        self._paths = array("q")  # hash of each path
        self._bases, self._stems, self._numbers = array("q"), array("q"), array("q")

    def locate(self, name: str, near: str = "") -> str:
        """Path of a picture within the folder, with slashes and with links resolved.

        Args:
            name: As in the caption file.
            near: Folder of the caption file, within the folder.

        Raises:
            ValueError: There is no such file, there are several, or it lies outside of the folder.
        """
        if self._last and self._last[0] == (name, near):
            return self._last[1]
        found = self._exactly(name, near) or self._loosely(name, near)
        self._last = ((name, near), found)
        return found

    def unnamed(self, named: np.ndarray) -> tuple[int, list[str]]:
        """How many picture files are not among these, and the first of them, sorted.

        Args:
            named: `hash` of each path that captions name, int64 [N].
        """
        self._list()
        assert self._names is not None
        rows = np.flatnonzero(~np.isin(np.asarray(self._paths, np.int64), named))
        return len(rows), sorted(self._names[int(row)] for row in rows[:1000])

    def loose(self) -> dict[str, int]:
        """Way of matching (such as `SPELLING`) -> number of names, each counted once."""
        return {way: len(np.unique(keys)) for way, keys in self._loose.items()}

    def __len__(self) -> int:
        """Number of picture files."""
        self._list()
        return len(self._paths)

    def _exactly(self, name: str, near: str) -> str | None:
        for folder in self._folders(near):
            path = os.path.join(self._root, folder, name)
            try:
                mode = os.lstat(path).st_mode
            except (FileNotFoundError, NotADirectoryError):
                mode = 0
            except (OSError, ValueError) as error:  # too long, NUL
                raise ValueError(
                    f"{ascii(name[:80])} cannot be the name of a file ({error})"
                ) from None
            parts = name.split("/")
            if stat.S_ISREG(mode) and ".." not in parts:
                parent, _, base = path.rpartition("/")
                if parent not in self._real:
                    self._real[parent] = os.path.realpath(parent)
                real = f"{self._real[parent]}/{base}"
            elif mode or ".." in parts:
                real = os.path.realpath(path)
            else:
                continue
            if not real.startswith(f"{self._root}/") and real != self._root:
                raise ValueError(f"{name} lies outside of {self._root}; copy it there")
            if stat.S_ISREG(mode) or os.path.isfile(real):
                return real[len(self._root) + 1 :]
        return None

    @staticmethod
    @functools.lru_cache
    def _folders(near: str) -> tuple[str, ...]:
        """Folders that names may be relative to."""
        inside = [f"{base}/{name}" for base in (near, "") for name in ("", *IMAGE_FOLDERS)]
        return tuple(dict.fromkeys(folder.strip("/") for folder in inside))

    def _loosely(self, name: str, near: str) -> str:
        key = hash(f"{near}\0{name}")
        if key in self._loose_of:
            return self._loose_of[key]
        if len(self._loose_of) >= REMEMBERED:
            self._loose_of.clear()
        path, way = self._search(name.replace("\\", "/"), near)
        found = self._exactly(path, "")
        if found is None:
            raise ValueError(f"{name} is missing")
        self._loose.setdefault(way, array("q")).append(key)
        self._loose_of[key] = found
        return found

    def _search(self, name: str, near: str) -> tuple[str, str]:
        """Path of the only picture file that a name may mean, and the way it was found.

        Raises:
            ValueError: There is none, or more than one.
        """
        self._list()
        wanted = _normal(name)
        base = wanted.rpartition("/")[2]
        has_extension = base.endswith(PICTURE_EXTENSIONS)
        ways = [(self._base_index, base)]
        if not has_extension:
            ways.append((self._stem_index, base))
            if base.isdecimal() and len(base) < 20:
                ways.append((self._number_index, str(int(base))))
        for index, key in ways:
            if not (found := self._with(index, key)):
                continue
            if len(found) > 1:
                found = _narrowed(found, name, wanted, near, has_extension)
            if len(found) > 1:
                raise ValueError(
                    f"{name} may be any of {len(found)} pictures: {', '.join(found[:3])}; write "
                    "the folder too"
                )
            if index is self._number_index:
                return found[0], NUMBER
            if index is self._stem_index:
                return found[0], EXTENSION
            wanted = wanted.removeprefix("./")
            places = [f"{place}/".lstrip("/") for place in self._folders(near)]
            here = _normal(found[0]) in [_normal(place) + wanted for place in places]
            return found[0], SPELLING if here else FOLDER
        raise ValueError(f"{name} is missing")

    def _with(self, index: IdIndex, key: str) -> list[str]:
        assert self._names is not None
        return [self._names[row] for row in index.every(hash(key))]

    def _list(self) -> None:
        """List all picture files; done once."""
        if self._names is not None:
            return
        self._names = Texts()
        for path in _pictures(self._root):
            base = _normal(path.rpartition("/")[2])
            stem = base.rpartition(".")[0]
            digits = _DIGITS.search(stem)
            self._names.append(path)
            self._paths.append(hash(path))
            self._bases.append(hash(base))
            self._stems.append(hash(stem))
            self._numbers.append(hash(str(int(digits[1]))) if digits else 0)
        self._names.flush()
        self._base_index = IdIndex(self._bases)
        self._stem_index = IdIndex(self._stems)
        self._number_index = IdIndex(self._numbers)


def _narrowed(found: list[str], name: str, wanted: str, near: str, whole: bool) -> list[str]:
    """Those of several pictures that a name means more than the others.

    Args:
        found: Their paths.
        name: The name.
        wanted: The same in its normal form.
        near: Folder of the caption file.
        whole: Whether the name has its extension.
    """

    def ends(path: str) -> bool:
        normal = _normal(path)
        return f"/{normal if whole else normal.rpartition('.')[0]}".endswith(f"/{wanted}")

    for matches in (
        ends,
        lambda path: path.startswith(f"{near}/"),
        lambda path: path.endswith(name.rpartition("/")[2]),
    ):
        if fewer := [path for path in found if matches(path)]:
            found = fewer
    return found


def _normal(name: str) -> str:
    """A name in the form in which names are compared."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _pictures(root: str) -> Iterator[str]:
    """Paths of the picture files below a folder, with slashes."""
    for folder, folders, files in os.walk(root):
        folders.sort()
        inside = os.path.relpath(folder, root).replace(os.sep, "/")
        prefix = "" if inside == "." else f"{inside}/"
        for name in sorted(files):
            if name.lower().endswith(PICTURE_EXTENSIONS):
                yield prefix + name
