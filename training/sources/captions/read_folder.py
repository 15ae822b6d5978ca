"""Reads all captions of a folder and finds the pictures that they name."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

from training.data.stored_picture import StoredPicture
from training.data.tar_picture import PictureFile
from training.sources.captions.caption_text import print_changes
from training.sources.captions.collected import CollectedPictures
from training.sources.captions.entry import Reading
from training.sources.captions.forms import PUBLISHED, Form
from training.sources.captions.picture_names import PictureNames
from training.sources.faults import listed


@dataclasses.dataclass
class FolderCaptions:
    """The captions of a folder.

    Attributes:
        form: In which form they are.
        pictures: What captions name, with the captions.
        names: The picture files of the folder.
        reading: What was found beside them.
    """

    form: Form
    pictures: CollectedPictures
    names: PictureNames
    reading: Reading

    def file(self, number: int) -> PictureFile:
        """The picture of this number."""
        picture = self.pictures[number]
        path = self.form.root / picture.path
        return path if picture.row is None else StoredPicture(path, picture.row)

    def print_loose(self) -> None:
        """Print what was matched loosely, changed or left out; nothing if nothing was."""
        said = [f"{count} {way}" for way, count in self.names.loose().items()]
        if said:
            print(f"names of pictures that were matched loosely:{listed(said)}", file=sys.stderr)
        left_out = [f"{count} {what}" for what, count in self.reading.left_out.items() if count]
        if left_out:
            print(f"left out, and no fault:{listed(left_out)}", file=sys.stderr)
        for note in self.reading.notes:
            print(f"note: {note}", file=sys.stderr)
        print_changes(self.reading.changes)

    def print_uncaptioned(self) -> None:
        """Print the pictures of the folder that no caption names; not a fault."""
        if len(self.pictures) and self.pictures[0].row is not None:
            return  # they are in a table
        count, first = self.names.unnamed(self.pictures.path_keys())
        if count:
            more = [f"… and {count - len(first)} more"] if count > len(first) else []
            print(
                f"{count} pictures have no caption and stay out:{listed([*first, *more])}",
                file=sys.stderr,
            )


class PictureSequence(Sequence[PictureFile]):
    """The pictures of a folder, each looked up when it is needed."""

    def __init__(self, captions: FolderCaptions, numbers: Sequence[int]) -> None:
        self._captions = captions
        self._numbers = numbers

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self._numbers)

    def __getitem__(self, index: int) -> PictureFile:  # type: ignore[override]  # takes no slices
        """The picture at this index."""
        return self._captions.file(self._numbers[index])


def read_folder(form: Form) -> FolderCaptions:
    """Read the captions of a folder.

    Raises:
        Refusal: A caption file cannot be read at all.
    """
    reading, pictures = Reading(root=form.root), CollectedPictures()
    names = PictureNames(form.root)
    repeats = form.key in PUBLISHED
    near = {part.file: "" if part.file.is_dir() else form.near(part) for part in form.parts}
    tables = {part.file: os.path.relpath(part.file, form.root) for part in form.parts}
    entries = form.entries(reading)
    for entry, part in track(entries, "reading captions", console=Console(stderr=True)):
        try:
            if entry.row is not None:
                path = Path(tables[part.file]).as_posix()
            else:
                path = names.locate(entry.file, near[part.file])
        except ValueError as error:
            reading.faults.append(f"{entry.where}: {error}")
        else:
            pictures.add(entry, path, repeats)
    pictures.group(reading.faults)
    return FolderCaptions(form, pictures, names, reading)
