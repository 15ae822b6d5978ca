"""What every reader of captions gives: one entry for each line, row or annotation of its file."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from training.data.splits import canonical_split
from training.sources.captions.caption_text import clean_captions
from training.sources.faults import Faults, clean_text, shortened


@dataclasses.dataclass
class Entry:
    """What one line of a file holds about a picture.

    Attributes:
        where: The line, for messages.
        file: File name of the picture, as written.
        captions: At least one; see `training.sources.captions.caption_text.clean_captions`.
        split: The split (see `training.data.splits`), or None if none is given.
        image_id: The id, or None if the file has no whole number for it.
        row: Of a table that holds the picture itself; None where `file` names a picture file.
    """

    where: str
    file: str
    captions: list[str]
    split: str | None = None
    image_id: int | None = None
    row: int | None = None


@dataclasses.dataclass
class Reading:
    """What is found while captions are read, beside the entries.

    Attributes:
        faults: One line for each fault.
        changes: What was changed in captions -> number of captions.
        left_out: What was left out although it is no fault -> how often.
        notes: What else is to be said, once.
        root: Folder that names of files in messages are relative to; None for names alone.
    """

    faults: Faults = dataclasses.field(default_factory=Faults)
    changes: Counter[str] = dataclasses.field(default_factory=Counter)
    left_out: Counter[str] = dataclasses.field(default_factory=Counter)
    notes: list[str] = dataclasses.field(default_factory=list)
    root: Path | None = None

    def name(self, file: Path) -> str:
        """What messages call a file."""
        if self.root and file.is_relative_to(self.root):
            return file.relative_to(self.root).as_posix()
        return file.name

    def clean(
        self, where: str, values: Iterable[Any], name: str = "caption", repeats: bool = False
    ) -> list[str]:
        """The captions of one line; those with a fault are left out without the others.

        Args:
            where: The line, for messages.
            values: Its captions, unchecked.
            name: Of the field, for messages.
            repeats: Whether the same caption may be there twice.
        """
        texts: list[str] = []
        wrong: list[str] = []
        for value in values:
            for text in clean_captions(value, name, self.changes, wrong):
                if text in texts and not repeats:
                    wrong.append(f"has the same caption twice ({shortened(text)})")
                else:
                    texts.append(text)
            for fault in wrong:
                self.faults.append(f"{where}: {fault}")
            wrong.clear()
        return texts

    def entry(
        self, where: str, file: Any, captions: list[Any], split: Any = None, repeats: bool = False
    ) -> Entry | None:
        """The entry of one line, or None if the line has no caption without a fault.

        Args:
            where: The line, for messages.
            file: Name of the picture, unchecked.
            captions: Captions, unchecked.
            split: The split, unchecked; None if the file has none.
            repeats: As for `clean`.
        """
        try:
            name = clean_text(file, "file")
            known = None if split is None else canonical_split(clean_text(split, "split"))
        except ValueError as error:
            self.faults.append(f"{where}: {error}")
            return None
        texts = self.clean(where, captions, repeats=repeats)
        return Entry(where, name, texts, known) if texts else None
