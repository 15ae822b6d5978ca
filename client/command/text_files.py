"""A text file beside each picture, as programs that train on captioned pictures read them."""

from __future__ import annotations

import functools
import os
from pathlib import Path

from client.command.folder import ALL_EXTENSIONS, is_picture
from client.command.record_formats import Outcome
from client.errors import CaptionError
from client.results import CaptionResult


class TextFiles:
    """`photo.txt` for `photo.jpg`: its captions, one a line, the best first.

    Where pictures of one folder differ in their extensions only, each keeps its own:
    `photo.jpg.txt` and `photo.png.txt`. A text file that exists is taken for the picture's answer
    and left as it is, whoever wrote it. An empty one is none.

    Args:
        overwrite: Whether text files that exist are replaced.
    """

    torn = 0

    def __init__(self, *, overwrite: bool = False) -> None:
        self._overwrite = overwrite
        # Pictures of a few folders are on their way at a time.
        self._shared = functools.lru_cache(maxsize=16)(_shared_stems)

    def has(self, picture: Path) -> bool:
        """Whether the picture has a text file with text."""
        if self._overwrite:
            return False
        try:
            return os.stat(self.path_of(picture)).st_size > 0
        except OSError:
            return False

    def write(self, picture: Path, outcome: Outcome) -> None:
        """Write the captions; a failure has no text file.

        Raises:
            CaptionError: The file cannot be written, or exists by now. Its code is
                `unwritable_text`.
        """
        if not isinstance(outcome, CaptionResult):
            return
        path = self.path_of(picture)
        text = "".join(f"{' '.join(each.caption.split())}\n" for each in outcome.captions)
        try:
            if self._overwrite:
                draft = path.with_name(f".{path.name}.part")
                draft.write_text(text, encoding="utf-8")
                os.replace(draft, path)
            else:
                _write_new(path, text.encode())
        except OSError as error:
            raise CaptionError(
                0, "unwritable_text", f"{path} cannot be written: {error.strerror or error}"
            ) from None

    def close(self) -> None:
        """Nothing is open between two pictures."""

    def path_of(self, picture: Path) -> Path:
        """The text file of a picture."""
        path = picture.with_suffix(".txt")
        if path == picture or picture.stem.casefold() in self._shared(picture.parent):
            return picture.with_name(f"{picture.name}.txt")
        return path


def _shared_stems(folder: Path) -> set[str]:
    """Names without extensions that several pictures of a folder have."""
    seen: set[str] = set()
    shared: set[str] = set()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_picture(entry, ALL_EXTENSIONS):
                    stem = os.path.splitext(entry.name)[0].casefold()
                    (shared if stem in seen else seen).add(stem)
    except OSError:  # the pictures there cannot be read either
        return set()
    return shared


def _write_new(path: Path, text: bytes) -> None:
    """Write a file that does not exist, or is empty; whole, or not at all."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        if os.fstat(file).st_size > 0:
            raise FileExistsError(None, "it exists")
        try:
            while text:
                text = text[os.write(file, text) :]
        except OSError:
            os.ftruncate(file, 0)
            raise
    finally:
        os.close(file)
