"""Finds picture files in folders. It holds the names of one folder at a time.

A file counts as a picture by the extension of its name: to open each file and look at its first
bytes would read a whole disk. The extensions are those of the formats that the server says it
accepts, or else of all that are known here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

#: The server's name of a format -> the extensions of its files, in lower case.
EXTENSIONS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "MPO": (".mpo",),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif", ".avifs"),
    "HEIF": (".heic", ".heics", ".heif", ".heifs", ".hif"),
}
ALL_EXTENSIONS = frozenset(each for found in EXTENSIONS.values() for each in found)


def extensions_of(formats: Iterable[object] | None) -> frozenset[str]:
    """Extensions of the files that a server accepts.

    Args:
        formats: `formats` of its description; None for all that are known here. Of a format that
            is not known here the name itself is taken for the extension.
    """
    if formats is None:
        return ALL_EXTENSIONS
    names = [str(each) for each in formats]
    return frozenset(
        found for name in names for found in EXTENSIONS.get(name.upper(), (f".{name.lower()}",))
    )


class Pictures:
    """The picture files of folders, and files that were named; iterated once.

    Names of one folder come sorted, its own files before those of its sub-folders. Hidden files and
    folders, whose names begin with a dot, are passed over, and links to folders are not followed.

    Args:
        paths: Folders, and files, which are taken whatever their names are.
        extensions: Those of pictures, in lower case.
        recursive: Whether sub-folders are read.

    Attributes:
        others: Files in the folders that are no pictures by their names, without text files.
        folders_left: Sub-folders that were not read, because `recursive` is False.
        unreadable: Folders that could not be read, with the reasons.
    """

    def __init__(
        self, paths: Sequence[Path], extensions: frozenset[str], *, recursive: bool
    ) -> None:
        self._paths, self._extensions, self._recursive = paths, extensions, recursive
        self.others = self.folders_left = 0
        self.unreadable: list[tuple[Path, OSError]] = []

    def __iter__(self) -> Iterator[Path]:
        """The files."""
        for path in self._paths:
            if not os.path.isdir(path):
                yield path
                continue
            folders = [path]
            while folders:
                folder = folders.pop()
                names, inner = self._read(folder)
                for name in names:
                    yield folder / name
                folders += [folder / name for name in reversed(inner)]

    def _read(self, folder: Path) -> tuple[list[str], list[str]]:
        """Names of the pictures and of the sub-folders to read, both sorted."""
        pictures, inner = [], []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if _is(entry.is_dir):
                        if self._recursive and not entry.is_symlink():
                            inner.append(entry.name)
                        else:
                            self.folders_left += 1
                    elif is_picture(entry, self._extensions):
                        pictures.append(entry.name)
                    elif not entry.name.endswith(".txt"):
                        self.others += 1
        except OSError as error:
            self.unreadable.append((folder, error))
        return sorted(pictures), sorted(inner)


def is_picture(entry: os.DirEntry[str], extensions: frozenset[str]) -> bool:
    """Whether a file of a folder has the name of a picture.

    A link that leads nowhere counts, so that its error is reported. A named pipe, which nobody may
    ever write to, does not.
    """
    if os.path.splitext(entry.name)[1].lower() not in extensions:
        return False
    return _is(entry.is_file) or (entry.is_symlink() and not os.path.exists(entry))


def _is(test: Callable[[], bool]) -> bool:
    """What a test of an entry says; False where a link leads in a circle."""
    try:
        return test()
    except OSError:
        return False
