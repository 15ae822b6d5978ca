"""Captions in Parquet and Arrow files, as Hugging Face's `datasets` writes them.

    data/train-00000-of-00002.parquet    columns of captions and `image`: {"bytes", "path"}
    train/metadata.parquet               file_name and text, beside picture files
    00000.parquet                        jpg, txt and status, of img2dataset
    train/data-00000-of-00001.arrow      of `save_to_disk`, with state.json beside it

The library is `pyarrow` alone: it reads both, a batch of rows at a time and without the column of
pictures, where `datasets` brings twenty packages and copies what it reads to a cache. A picture is
read again when it is needed (see `StoredPicture`).
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from model.refusal import Refusal
from training.sources.captions.columns import PICTURE, Columns, Named, find_columns
from training.sources.captions.entry import Entry, Reading

#: Rows that are read at a time.
BATCH = 4096
FAILED = "rows whose status is not success"


@dataclasses.dataclass(frozen=True)
class StoredPicture:
    """The picture in a row of a Parquet or Arrow file.

    Reading one row of a Parquet file reads its row group (usually 100 to 1000 rows); the last one
    stays in memory, so rows are best read in order.

    Attributes:
        file: The table.
        row: From 0.
    """

    file: Path
    row: int

    def read_bytes(self) -> bytes:
        """The bytes of the picture file.

        Raises:
            Refusal: The row has none.
        """
        value = _picture(str(self.file), self.row)
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes) or not content:
            raise Refusal("the row has no picture")
        return content

    def stat(self) -> os.stat_result:
        """Of the table."""
        return self.file.stat()

    def __str__(self) -> str:
        """Table and row, for messages."""
        return f"{self.file}: row {self.row}"


def arrow(module: str) -> Any:
    """A module of `pyarrow`.

    Raises:
        Refusal: The package is not installed.
    """
    try:
        return importlib.import_module(f"pyarrow{module}")
    except ModuleNotFoundError:
        raise Refusal(
            "Parquet and Arrow files are read with pyarrow, which is not installed; install it: "
            ".venv/bin/pip install -e '.[parquet]' -c constraints.txt"
        ) from None


def stored_schema(file: Path) -> Any:
    """The schema of a Parquet or Arrow file.

    Raises:
        Refusal: It is damaged, or of another kind.
    """
    try:
        if file.suffix == ".parquet":
            return arrow(".parquet").ParquetFile(file).schema_arrow
        return arrow(".ipc").open_stream(arrow("").memory_map(str(file))).schema
    except (ValueError, OSError) as error:  # pyarrow's errors are of these two kinds
        raise Refusal(f"{file} is damaged or no Parquet or Arrow file ({error})") from None


def picture_column(schema: Any) -> str | None:
    """Name of the column that holds pictures: bytes, or a struct of bytes and path; else None."""
    types = arrow("").types
    for name in PICTURE:
        index = schema.get_field_index(name)
        if index < 0:
            continue
        kind = schema.field(index).type
        if types.is_binary(kind) or types.is_large_binary(kind):
            return name
        if types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            return name
    return None


def stored_columns(schema: Any, given: Named = Named()) -> tuple[Columns, str | None]:
    """The columns of a table, and the one of its pictures.

    Raises:
        ValueError: One is missing, or there are two to choose from.
    """
    names = {name: name.strip().lower() for name in schema.names}
    picture = picture_column(schema)
    if picture is None:
        return find_columns(tuple(names.values()), given), None
    # The picture is its own file, whatever else names one.
    others = [low for name, low in names.items() if name != picture and low not in _NAMES]
    return find_columns(("file", *others), Named(None, given.caption)), picture


#: Names of a file beside a column of pictures.
_NAMES = frozenset(("file", "file_name", "image"))


def read_stored(file: Path, reading: Reading, given: Named = Named()) -> Iterator[Entry]:
    """The entries of a Parquet or Arrow file, one for each row.

    Raises:
        Refusal: It is damaged, or lacks a column.
    """
    schema = stored_schema(file)
    try:
        columns, picture = stored_columns(schema, given)
    except ValueError as error:
        raise Refusal(
            f"{file} has the columns {schema.names}; it must have one of pictures or file names and "
            f"one of captions ({error}); name others with folder.file_column=NAME "
            "folder.caption_column=NAME"
        ) from None
    wanted = [
        name
        for name in schema.names
        if name != picture
        and name.strip().lower() in {columns.file, *columns.captions, columns.split, "status"}
    ]
    number = -1
    for batch in _batches(file, wanted):
        for fields in batch.to_pylist():
            number += 1
            where = f"{reading.name(file)} row {number}"
            low = {name.strip().lower(): value for name, value in fields.items()}
            if picture and "status" in low and low["status"] != "success":
                reading.left_out[FAILED] += 1
                continue
            values = [low[column] for column in columns.captions]
            captions = values[0] if len(values) == 1 and isinstance(values[0], list) else values
            split = low[columns.split] if columns.split else None
            name = f"{file.name}#{number}" if picture else low[columns.file]
            if entry := reading.entry(where, name, captions or [""], split, repeats=True):
                entry.row = number if picture else None
                yield entry


def _batches(file: Path, columns: list[str]) -> Iterator[Any]:
    """Batches of rows with these columns only.

    Raises:
        Refusal: The file is damaged.
    """
    try:
        if file.suffix == ".parquet":
            opened = arrow(".parquet").ParquetFile(file)
            yield from opened.iter_batches(batch_size=BATCH, columns=columns)
            return
        with arrow("").memory_map(str(file)) as mapped:
            for batch in arrow(".ipc").open_stream(mapped):
                yield batch.select(columns)
    except (ValueError, OSError) as error:
        raise Refusal(f"{file} is damaged ({error})") from None


@functools.lru_cache(maxsize=2)
def _opened(file: str) -> tuple[Any, list[int]]:
    """A table of pictures: where its row groups end, and what reads one."""
    schema = stored_schema(Path(file))
    column = picture_column(schema)
    if column is None:
        raise Refusal(f"{file} has no column of pictures any more; make the data set again")
    ends = [0]
    if file.endswith(".parquet"):
        opened = arrow(".parquet").ParquetFile(file)
        for group in range(opened.num_row_groups):
            ends.append(ends[-1] + opened.metadata.row_group(group).num_rows)
        return functools.partial(_parquet_group, opened, column), ends
    batches = list(arrow(".ipc").open_stream(arrow("").memory_map(file)))  # mapped, not read
    for batch in batches:
        ends.append(ends[-1] + batch.num_rows)
    return lambda group: batches[group].column(column), ends


def _parquet_group(opened: Any, column: str, group: int) -> Any:
    return opened.read_row_group(group, columns=[column]).column(column)


@functools.lru_cache(maxsize=1)
def _group(file: str, group: int) -> Any:
    return _opened(file)[0](group)


def _picture(file: str, row: int) -> Any:
    """The value of the column of pictures in a row."""
    ends = _opened(file)[1]
    group = next((g for g in range(len(ends) - 1) if ends[g] <= row < ends[g + 1]), None)
    if group is None:
        raise Refusal(f"the table has {ends[-1]} rows; it has changed")
    return _group(file, group)[row - ends[group]].as_py()
