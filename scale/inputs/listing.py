"""Lists the pictures of the input as a stream, in an order that is the same each time.

An input is a folder, a file or a pattern with `*`, on this machine or at an address that fsspec
knows (`s3://`, `gs://`, `https://`). By the ending of its name a file is

    .tar            a WebDataset shard: its pictures
    .parquet        a table with a picture in each row, as bytes or as a path or URL
    .txt .lst       a list: the path or URL of a picture on each line
    .jpg .png ...   a picture

A folder is read with all its sub-folders, and holds files of one of these kinds.
"""

from __future__ import annotations

import collections
import io
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import fsspec
from fsspec.implementations.local import LocalFileSystem

from model.refusal import Refusal
from scale.inputs.ahead import ahead
from scale.inputs.entry import Entry, place_beside
from scale.inputs.extensions import is_picture
from scale.inputs.parquet_rows import Columns, rows_of
from scale.inputs.tar_members import members_of
from scale.output.store import filesystem

LISTS = (".txt", ".lst")
#: Shards whose headers are read at a time: of a bucket each takes seconds.
SHARDS_AT_A_TIME = 8


class Listing:
    """The pictures of some inputs; iterated once.

    Args:
        inputs: Folders, files, patterns.
        columns: Of Parquet files: which have the pictures and their ids.

    Attributes:
        passed_over: What was left out -> how often.
        faults: Sentences about inputs that are damaged in part.
    """

    def __init__(self, inputs: Sequence[str], columns: Columns) -> None:
        self._inputs, self._columns = inputs, columns
        self.passed_over: collections.Counter[str] = collections.Counter()
        self.faults: list[str] = []

    def __iter__(self) -> Iterator[Entry]:
        """The pictures.

        Raises:
            Refusal: An input is not there, of no known kind, or has no pictures.
        """
        for given in self._inputs:
            count = 0
            for entry in self._entries(given):
                count += 1
                yield entry
            if not count:
                raise Refusal(f"{given} has no pictures{self._left_out()}")

    def _left_out(self) -> str:
        parts = [f"{count} {what}" for what, count in self.passed_over.items()]
        return f" (passed over: {', '.join(parts)})" if parts else ""

    def _entries(self, given: str) -> Iterator[Entry]:
        if given.startswith(("http://", "https://")):
            if given.lower().endswith((".tar", ".parquet", *LISTS)):
                fs, path = filesystem(given)
                yield from self._of_files(fs, [(path.rpartition("/")[2], path, -1)])
            else:
                yield Entry(given, given)
            return
        fs, path = filesystem(given)
        if fs.isdir(path):
            yield from self._of_files(fs, self._walk(fs, path.rstrip("/"), ""))
        elif fs.isfile(path):
            yield from self._of_files(fs, [(path.rpartition("/")[2], path, -1)])
        elif any(sign in path for sign in "*?["):
            files = sorted(str(each) for each in fs.glob(path))
            yield from self._of_files(fs, [(each.rpartition("/")[2], each, -1) for each in files])
        else:
            raise Refusal(f"{given} is not there: no folder, file or pattern of that name")

    def _walk(
        self, fs: fsspec.AbstractFileSystem, folder: str, below: str
    ) -> Iterator[tuple[str, str, int]]:
        """Relative name, path and size of each file, without hidden ones; one folder at a time."""
        for info in sorted(fs.ls(folder, detail=True), key=lambda each: str(each["name"])):
            path = str(info["name"]).rstrip("/")
            name = path.rpartition("/")[2]
            if name.startswith(".") or path == folder:
                continue
            if info.get("islink") and fs.isdir(path):  # it may lead in a circle
                self.passed_over["links to folders"] += 1
            elif info["type"] == "directory":
                yield from self._walk(fs, path, f"{below}{name}/")
            else:
                yield f"{below}{name}", path, -1 if info["size"] is None else int(info["size"])

    def _of_files(
        self, fs: fsspec.AbstractFileSystem, files: Iterable[tuple[str, str, int]]
    ) -> Iterator[Entry]:
        """The pictures of files of one kind."""
        chosen = ""
        shards: list[str] = []
        for name, path, size in files:
            kind = _kind_of(name)
            if not kind:
                self.passed_over["files that are no pictures by their names"] += 1
                continue
            if chosen and kind != chosen:
                raise Refusal(
                    f"{_place(fs, path)} is a {kind}, and other files of the same input are "
                    f"{chosen}s; name one kind with a pattern, such as 'folder/*.tar'"
                )
            chosen = kind
            if kind == "picture":
                yield Entry(name, _place(fs, path), size=size)
            elif kind == "shard":
                shards.append(path)
            elif kind == "table":
                yield from rows_of(fs, path, _place(fs, path), name, self._columns)
            else:
                yield from _lines_of(fs, path)
        if shards:
            with ThreadPoolExecutor(SHARDS_AT_A_TIME) as pool:
                for entries, fault in ahead(
                    pool,
                    lambda shard: members_of(fs, shard, _place(fs, shard)),
                    shards,
                    SHARDS_AT_A_TIME,
                ):
                    if fault:
                        self.faults.append(fault)
                    yield from entries


def _kind_of(name: str) -> str:
    lower = name.lower()
    if is_picture(name.rpartition("/")[2]):
        return "picture"
    if lower.endswith(".tar"):
        return "shard"
    if lower.endswith(".parquet"):
        return "table"
    return "list" if lower.endswith(LISTS) else ""


def _place(fs: fsspec.AbstractFileSystem, path: str) -> str:
    """The address of a path, for any process."""
    return path if isinstance(fs, LocalFileSystem) else str(fs.unstrip_protocol(path))


def _lines_of(fs: fsspec.AbstractFileSystem, path: str) -> Iterator[Entry]:
    place = _place(fs, path)
    with fs.open(path, "rb") as file:
        for number, line in enumerate(io.BufferedReader(file), 1):
            try:
                name = line.decode().strip()
            except UnicodeDecodeError:
                raise Refusal(f"{place}: line {number} is not UTF-8") from None
            if name:
                yield Entry(name, place_beside(place, name))
