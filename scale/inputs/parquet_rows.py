"""Pictures in Parquet files: which column has them, their ids, and reading their bytes in order."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from model.refusal import Refusal
from scale.inputs.entry import Entry, Kind, place_beside
from scale.output.store import filesystem

#: Names that columns of pictures and of ids usually have, in the order they are looked for.
PICTURES = ("image", "bytes", "image_bytes", "jpg", "content", "url", "image_url", "path",
            "image_path", "file_name")  # fmt: skip
IDS = ("id", "key", "image_id")
#: Rows that are read at a time.
ROWS = 64


@dataclasses.dataclass(frozen=True)
class Columns:
    """Names of the columns of Parquet inputs; None to look for the usual ones.

    Attributes:
        picture: Bytes (binary, or a struct with `bytes` as Hugging Face writes), or paths or URLs.
        id: Ids. Without one a path or URL is its own id, and a row of bytes has `FILE:ROW`.
    """

    picture: str | None = None
    id: str | None = None


def rows_of(
    fs: fsspec.AbstractFileSystem, path: str, place: str, name: str, columns: Columns
) -> Iterator[Entry]:
    """The pictures of a Parquet file, in its order, without reading their bytes.

    Args:
        fs: Its file system.
        path: Of the file in it.
        place: Its address for the plan.
        name: Its name for ids.
        columns: Of the pictures and ids.

    Raises:
        Refusal: It is no Parquet file, or has no such column.
    """
    with fs.open(path, "rb") as opened:
        file = parquet_file(opened, place)
        picture = picture_column(file, place, columns)
        ids = _id_column(file, place, columns)
        is_bytes = _is_bytes(file.schema_arrow.field(picture).type)
        wanted = [ids] if ids else []
        if not is_bytes:
            wanted.append(picture)
        if not wanted:
            for row in range(file.metadata.num_rows):
                yield Entry(f"{name}:{row}", place, Kind.ROW, row)
            return
        row = 0
        for batch in file.iter_batches(columns=wanted):
            keys = batch.column(ids).to_pylist() if ids else [None] * batch.num_rows
            paths = [None] * batch.num_rows if is_bytes else batch.column(picture).to_pylist()
            for key, where in zip(keys, paths, strict=True):
                if ids and key is None:
                    raise Refusal(f"{place}: row {row} has no {ids}; every picture needs an id")
                if is_bytes:
                    yield Entry(str(key), place, Kind.ROW, row)
                else:  # an empty place becomes a row with an error
                    found = "" if not where else place_beside(place, where)
                    called = str(key) if ids else where or f"{name}:{row}"
                    yield Entry(called, found)
                row += 1


def parquet_file(opened: Any, place: str) -> pq.ParquetFile:
    """An opened Parquet file; raises `Refusal` where it is none."""
    try:
        return pq.ParquetFile(opened, pre_buffer=False, buffer_size=1 << 20)
    except pa.ArrowInvalid as error:
        raise Refusal(f"{place} cannot be read as Parquet: {error}") from None


def picture_column(file: pq.ParquetFile, place: str, columns: Columns) -> str:
    """The name of the column that has the pictures.

    Raises:
        Refusal: There is none of that name, or of the usual names, or it has neither bytes nor
            text.
    """
    name = _column(file, place, columns.picture, PICTURES, "--image-column")
    if name is None:
        raise Refusal(
            f"{place} has the columns {', '.join(file.schema_arrow.names)}; name the one with the "
            "pictures: --image-column NAME"
        )
    kind = file.schema_arrow.field(name).type
    if not (_is_bytes(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise Refusal(f"{place}: column {name} is of type {kind}; it must be bytes or text")
    return name


def _id_column(file: pq.ParquetFile, place: str, columns: Columns) -> str | None:
    return _column(file, place, columns.id, IDS, "--id-column")


def _column(
    file: pq.ParquetFile, place: str, given: str | None, usual: tuple[str, ...], flag: str
) -> str | None:
    names = file.schema_arrow.names
    if given is not None and given not in names:
        raise Refusal(f"{place} has no column {given} ({flag}); it has {', '.join(names)}")
    return given or next((name for name in usual if name in names), None)


def _is_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


class RowReader:
    """Reads pictures of rows whose numbers rise; holds a few rows of one file at a time.

    Parquet is read from the beginning of a group of rows. So a row further back begins the group
    again, and rows between two that are wanted are read and dropped.
    """

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._place = ""
        self._opened: Any = None
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._rows: list[Any] = []
        self._first = self._group_end = 0  # number of the first row of `_rows`

    def read(self, place: str, row: int) -> bytes | None:
        """The bytes of a row; None where it has none.

        Raises:
            OSError: The file cannot be read.
            Refusal: It is not the Parquet file that was listed.
        """
        if place != self._place:
            self.close()
            fs, path = filesystem(place)
            self._opened = fs.open(path, "rb")
            self._file = parquet_file(self._opened, place)
            self._column = picture_column(self._file, place, self._columns)
            self._place, self._rows, self._first, self._group_end = place, [], 0, 0
        if row < self._first or row >= self._group_end:
            self._begin_group(row)
        while row >= self._first + len(self._rows):
            self._first += len(self._rows)
            self._rows = next(self._batches).column(0).to_pylist()
        value = self._rows[row - self._first]
        if isinstance(value, dict):
            value = value["bytes"]
        return value

    def _begin_group(self, row: int) -> None:
        end = 0
        for group in range(self._file.num_row_groups):
            first, end = end, end + self._file.metadata.row_group(group).num_rows
            if row < end:
                self._batches = self._file.iter_batches(ROWS, [group], [self._column])
                self._rows, self._first, self._group_end = [], first, end
                return
        raise Refusal(f"{self._place} has {end} rows, and row {row} was listed; it has changed")

    def close(self) -> None:
        """Let go of the file."""
        if self._opened is not None:
            self._opened.close()
        self._opened, self._place = None, ""
