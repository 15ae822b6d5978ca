"""A picture of the input: its id, and where its bytes are."""

from __future__ import annotations

import enum
from typing import NamedTuple

import pyarrow as pa


class Kind(enum.IntEnum):
    """How the bytes of a picture are read."""

    FILE = 0
    RANGE = 1
    ROW = 2


class Entry(NamedTuple):
    """One picture of the input.

    Attributes:
        id: Its name in the output, unique.
        place: Path or address of the file that has its bytes.
        kind: The whole file, a range of its bytes (tar), or a row of it (Parquet).
        offset: First byte of a range, or the number of a row from 0; -1 of a whole file.
        size: Bytes of a range; of a whole file where listing it gives that, else -1.
    """

    id: str
    place: str
    kind: int = Kind.FILE
    offset: int = -1
    size: int = -1


#: The same as columns of the plan.
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("place", pa.string()),
        ("kind", pa.int8()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
    ]
)


def table_of(entries: list[Entry]) -> pa.Table:
    """Entries as rows."""
    columns = list(zip(*entries, strict=True)) or [()] * len(SCHEMA)
    arrays = [pa.array(each, field.type) for each, field in zip(columns, SCHEMA, strict=True)]
    return pa.table(arrays, SCHEMA)


def entries_of(table: pa.Table) -> list[Entry]:
    """Rows as entries."""
    return [Entry(*row) for row in zip(*(each.to_pylist() for each in table.columns), strict=True)]


def place_beside(place: str, name: str) -> str:
    """The address of what a list or table at `place` calls `name`: absolute, or beside it."""
    if "://" in name or name.startswith("/"):
        return name
    return f"{place.rpartition('/')[0]}/{name}"
