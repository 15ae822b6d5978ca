"""Captions in a text file beside each picture, as trainers of LoRA write them.

    10_boats/IMG_1.JPG     10_boats/IMG_1.txt  or  IMG_1.caption

The folders may be nested. A file holds one caption, or one in each line
(`folder.text_lines=each`). img2dataset's output in files has this form too: 00000/000000003.jpg
with 000000003.txt.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from training.sources.captions.entry import Entry, Reading
from training.sources.picture_extensions import PICTURE_EXTENSIONS

#: Extensions of caption files that are looked for, in this order.
EXTENSIONS = (".txt", ".caption")
#: The largest caption file in bytes.
MAX_CAPTION = 1_000_000
EMPTY = "pictures whose text file is empty"


def find_extension(root: Path, given: str | None) -> str | None:
    """The extension of the text files beside the pictures; None if no picture has one.

    Args:
        root: The folder.
        given: The extension, with or without its dot; None looks for those of `EXTENSIONS`.
    """
    extensions = EXTENSIONS if given is None else (f".{given.lstrip('.')}",)
    for _, _, files in os.walk(root):
        stems = {os.path.splitext(name)[0] for name in files if _is_picture(name)}
        for extension in extensions:
            if any(name.endswith(extension) and name[: -len(extension)] in stems for name in files):
                return extension
    return None


def read_text_beside(
    root: Path, start: Path, reading: Reading, extension: str, each_line: bool
) -> Iterator[Entry]:
    """The entries of a folder, one for each picture that has a text file.

    Memory holds the names of the files of one folder.

    Args:
        root: The folder that paths are relative to.
        start: The folder that is read, with all below it.
        reading: Faults are added.
        extension: Of the text files, with its dot.
        each_line: Whether each line is a caption; otherwise all lines are one.
    """
    for folder, folders, files in os.walk(start):
        folders.sort()
        texts = {name for name in files if name.endswith(extension)}
        inside = os.path.relpath(folder, root)
        for name in sorted(files):
            text = os.path.splitext(name)[0] + extension
            if not _is_picture(name) or text not in texts:
                continue
            path = name if inside == "." else f"{inside}/{name}"
            where = text if inside == "." else f"{inside}/{text}"
            content = _read(os.path.join(folder, text), where, reading)
            if content is None:
                continue
            lines = content.replace("\r", "\n").split("\n") if each_line else [content]
            said = [line for line in lines if line.strip()]
            if not said:
                reading.left_out[EMPTY] += 1
            elif entry := reading.entry(where, path, said):
                yield entry


def _read(file: str, where: str, reading: Reading) -> str | None:
    """The text of a caption file; None after a fault."""
    with open(file, "rb") as opened:
        content = opened.read(MAX_CAPTION + 1)
    if len(content) > MAX_CAPTION:
        reading.faults.append(f"{where}: has more than {MAX_CAPTION} bytes")
        return None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        reading.faults.append(f"{where}: is not UTF-8 (byte {error.start + 1})")
        return None


def _is_picture(name: str) -> bool:
    return name.lower().endswith(PICTURE_EXTENSIONS)
