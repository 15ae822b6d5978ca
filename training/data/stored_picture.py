"""A picture inside a Parquet or Arrow file, as Hugging Face's `datasets` writes them."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import os
from pathlib import Path
from typing import Any

from model.refusal import Refusal

#: Columns that may hold pictures.
PICTURE = ("image", "jpg", "png", "img", "picture", "photo")


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
