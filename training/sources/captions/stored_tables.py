"""Captions in Parquet and Arrow files, as Hugging Face's `datasets` writes them.

    data/train-00000-of-00002.parquet    columns of captions and `image`: {"bytes", "path"}
    train/metadata.parquet               file_name and text, beside picture files
    00000.parquet                        jpg, txt and status, of img2dataset
    train/data-00000-of-00001.arrow      of `save_to_disk`, with state.json beside it

The library is `pyarrow` alone: it reads both, a batch of rows at a time and without the column of
pictures, where `datasets` brings twenty packages and copies what it reads to a cache. A picture is
read again when it is needed (see `training.data.stored_picture`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from model.refusal import Refusal
from training.data.stored_picture import arrow, picture_column, stored_schema
from training.sources.captions.columns import USUAL, Columns, Named, find_columns
from training.sources.captions.entry import Entry, Reading

#: Rows that are read at a time.
BATCH = 4096
FAILED = "rows whose status is not success"


def stored_columns(schema: Any, given: Named = USUAL) -> tuple[Columns, str | None]:
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


def read_stored(file: Path, reading: Reading, given: Named = USUAL) -> Iterator[Entry]:
    """The entries of a Parquet or Arrow file, one for each row.

    Raises:
        Refusal: It is damaged, or lacks a column.
    """
    schema = stored_schema(file)
    try:
        columns, picture = stored_columns(schema, given)
    except ValueError as error:
        raise Refusal(
            f"{file} has the columns {schema.names}; it must have one of pictures or file names "
            f"and one of captions ({error}); name others with folder.file_column=NAME "
            "folder.caption_column=NAME"
        ) from None
    wanted = [
        name
        for name in schema.names
        if name != picture
        and name.strip().lower() in {columns.file, *columns.captions, columns.split, "status"}
    ]
    number, label = -1, reading.name(file)
    for batch in _batches(file, wanted):
        for fields in batch.to_pylist():
            number += 1
            where = f"{label} row {number}"
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
