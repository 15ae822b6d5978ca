"""Which column of a table, or which field of a JSON object, holds what.

A name of the first group is taken before one of the second, so a file with `caption` and `title`
has its captions in `caption`. Two names of the same group are not guessed between.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterable

#: Names of the column of file names.
FILE = ("file", "file_name", "image")
OTHER_FILE = (
    *("filename", "filepath", "file_path", "path", "image_name", "image_path", "image_file"),
    *("img", "img_path", "img_name", "photo", "picture"),
)
#: The last resort: the number at the end of a file's name, as in ClipCap's lists.
NUMBER = ("image_id", "cocoid")
#: Names of the column of captions.
CAPTION = ("caption", "captions", "text")
OTHER_CAPTION = (
    *("comment", "sentence", "title", "description", "raw", "txt", "alt_text", "sentences_raw"),
    *("reference_strs", "annotations_captions"),
)
#: Several columns of captions: caption_0, caption_1, ...
NUMBERED = re.compile(r"(?:caption|comment|text|sentence)[_ ]?\d+")


@dataclasses.dataclass(frozen=True)
class Named:
    """Names that the user gives in place of those above; None for what is looked for."""

    file: str | None = None
    caption: str | None = None


#: Nothing is given.
USUAL = Named()


@dataclasses.dataclass(frozen=True)
class Columns:
    """Names of columns as the file writes them, once stripped and in lower case."""

    file: str
    captions: tuple[str, ...]
    split: str | None


def find_columns(names: Iterable[str], given: Named = USUAL) -> Columns:
    """The columns of a table with these names, in lower case.

    Raises:
        ValueError: One is missing, or there are two to choose from.
    """
    return _found(tuple(names), given)


@functools.lru_cache(maxsize=1024)
def _found(names: tuple[str, ...], given: Named) -> Columns:
    numbered = tuple(name for name in names if NUMBERED.fullmatch(name))
    file = _one("file", names, given.file, FILE, OTHER_FILE, NUMBER)
    if given.caption is None and numbered and not set(CAPTION) & set(names):
        return Columns(file, numbered, _split(names))
    return Columns(
        file, (_one("caption", names, given.caption, CAPTION, OTHER_CAPTION),), _split(names)
    )


def _split(names: tuple[str, ...]) -> str | None:
    if names.count("split") > 1:
        raise ValueError("split is there twice")
    return "split" if "split" in names else None


def _one(what: str, names: tuple[str, ...], given: str | None, *groups: tuple[str, ...]) -> str:
    """The name of the column of files or of captions.

    Raises:
        ValueError: There is none, or more than one in the first group that has one.
    """
    if given is not None:
        groups = ((given.strip().lower(),),)
    for group in groups:
        there = [name for name in names if name in group]
        if len(there) > 1:
            raise ValueError(f"{' and '.join(there)} may each be the column called {what}")
        if there:
            return there[0]
    raise ValueError(f"none is called {given or what}")
