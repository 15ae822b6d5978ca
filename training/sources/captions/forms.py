"""The forms in which captions are, and reading them all in the same way."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from training.sources.captions import coco_files, json_lists, stored_tables, table, text_beside
from training.sources.captions.columns import Named
from training.sources.captions.entry import Entry, Reading
from training.sources.captions.text_lines import text_lines

#: Key of a form -> what the user knows it as.
WORDS = {
    "table": "table of captions",
    "jsonl": "lines of JSON",
    "flickr8k": "Flickr8k captions.txt",
    "flickr30k": "Flickr30k results.csv",
    "token": "Flickr token file",
    "coco": "COCO captions",
    "vizwiz": "VizWiz-Captions",
    "nocaps": "nocaps",
    "karpathy": "Karpathy's JSON",
    "textcaps": "TextCaps",
    "list": "JSON list of pictures and captions, as of BLIP and ClipCap",
    "data": "JSON list of pictures and captions",
    "mapping": "JSON object of file names and captions",
    "metadata": "Hugging Face image folder",
    "stored": "Parquet with captions",
    "arrow": "Hugging Face datasets, save_to_disk",
    "beside": "text beside each picture",
    "img2dataset": "img2dataset files",
}
#: Forms whose files are other people's: a caption that is there twice is no fault of the user.
PUBLISHED = set(WORDS) - {"table", "jsonl", "beside"}
UNLISTED = "captions of pictures that are in no list of a split"


@dataclasses.dataclass(frozen=True)
class Part:
    """A file of captions, or a folder of text files.

    Attributes:
        file: The file or folder.
        split: The split that its name tells, if the names of all parts tell at least two.
    """

    file: Path
    split: str | None = None


@dataclasses.dataclass(frozen=True)
class Form:
    """What was recognised.

    Attributes:
        key: Of `WORDS`.
        root: The folder.
        parts: Files of captions.
        given: Names of columns that the user gives.
        extension: Of the text files beside pictures.
        each_line: Whether each of their lines is a caption.
        split_lists: Files with the names of the pictures of a split, by split.
    """

    key: str
    root: Path
    parts: tuple[Part, ...]
    given: Named = Named()
    extension: str = ".txt"
    each_line: bool = False
    split_lists: dict[str, Path] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        """One line: what was recognised, and in which files."""
        names = [os.path.relpath(part.file, self.root).replace(os.sep, "/") for part in self.parts]
        shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        if self.key in ("beside", "img2dataset"):
            shown = f"NAME{self.extension} beside NAME.jpg" + (
                f" in {shown}" if names != ["."] else ""
            )
        splits = sorted({part.split for part in self.parts if part.split} | set(self.split_lists))
        told = f"; splits {', '.join(splits)}" if splits else ""
        return f"recognised {WORDS[self.key]}: {shown}{told}"

    def near(self, part: Part) -> str:
        """Folder of a part, within the folder, with slashes."""
        folder = part.file if part.file.is_dir() else part.file.parent
        inside = os.path.relpath(folder, self.root).replace(os.sep, "/")
        return "" if inside == "." or inside.startswith("..") else inside

    def entries(self, reading: Reading) -> Iterator[tuple[Entry, Part]]:
        """The entries of all parts; each has its split, if one is known.

        Raises:
            Refusal: A part cannot be read at all.
        """
        listed_splits = _listed_splits(self.split_lists)
        for part in self.parts:
            for entry in self._read(part, reading):
                entry.split = entry.split or part.split
                if listed_splits and entry.split is None:
                    entry.split = listed_splits.get(entry.file.rpartition("/")[2])
                    if entry.split is None:
                        reading.left_out[UNLISTED] += len(entry.captions)
                        continue
                yield entry, part

    def _read(self, part: Part, reading: Reading) -> Iterator[Entry]:
        file, given = part.file, self.given
        published = self.key in PUBLISHED
        readers: dict[str, Callable[[], Iterator[Entry]]] = {
            "coco": lambda: coco_files.read_coco(file, reading),
            "karpathy": lambda: json_lists.read_karpathy(file, reading),
            "list": lambda: json_lists.read_list(file, reading, given, _member(file)),
            "mapping": lambda: json_lists.read_mapping(file, reading),
            "stored": lambda: stored_tables.read_stored(file, reading, given),
            "jsonl": lambda: table.read_json_lines(file, reading, given, published),
            "beside": lambda: text_beside.read_text_beside(
                self.root, file, reading, self.extension, self.each_line
            ),
            "table": lambda: table.read_table(file, reading, given, published),
        }
        return readers[_reader(self.key, file)]()


def _reader(key: str, file: Path) -> str:
    """Which reader a file of a form needs."""
    if key == "metadata":
        return {".csv": "table", ".jsonl": "jsonl", ".parquet": "stored"}[file.suffix]
    same = {
        **dict.fromkeys(("vizwiz", "nocaps"), "coco"),
        **dict.fromkeys(("data", "textcaps"), "list"),
        **dict.fromkeys(("flickr8k", "flickr30k", "token"), "table"),
        **{"arrow": "stored", "img2dataset": "beside"},
    }
    return same.get(key, key)


def _member(file: Path) -> str | None:
    """Name of the list in a JSON file; None if the file is the list."""
    with file.open(encoding="utf-8-sig") as opened:
        return None if opened.read(1000).lstrip()[:1] == "[" else "data"


def _listed_splits(files: dict[str, Path]) -> dict[str, str]:
    """Name of a picture -> its split."""
    return {
        line.strip(): split
        for split, file in files.items()
        for line in text_lines(file)
        if line.strip()
    }
