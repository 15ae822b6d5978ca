"""Rows of a CSV file, so that a quote that is never closed costs one row and not all behind it.

The standard library reads a quoted field to its closing quote, over any number of lines. If that
quote is missing, the field takes in the lines behind it up to the next quote, or to the end of the
file. Here such a row is a fault, and reading goes on at the next line.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence

from training.sources.tar_samples import PICTURE_EXTENSIONS

#: Lines of one row, at most; it bounds the time that a file with many unclosed quotes takes.
MAX_LINES = 1000


def csv_rows(
    text: Iterable[str], file_columns: Sequence[str]
) -> Iterator[tuple[int, list[str] | str]]:
    """The rows of a CSV file.

    A quoted field may contain line ends. It counts as unclosed if a line inside of it is a row of
    its own, with the name of a picture file in the column of file names.

    Args:
        text: Its lines, with their line ends.
        file_columns: Names of the column that holds file names, in lower case.

    Returns:
        For each row that is not empty the number of its first line, from 1, and its fields, or what
        is wrong with it.
    """
    lines = list(text)
    column, width = 0, 0  # of the header: index of the column of files, number of columns
    start = 0  # index of the first line of the row that is read
    while start < len(lines):
        reader = csv.reader(_limited(lines, start), strict=True)
        try:
            row, fault = next(reader), None
        except csv.Error as error:
            row, fault = [], f"cannot be read as CSV ({error})"
        taken = reader.line_num - 1  # lines behind the first
        number = start + 1
        if taken and not fault:
            inner = lines[start + 1 : start + 1 + taken]
            if any(_is_row(line, column, width) for line in inner):
                fault = "cannot be read as CSV (a quote is not closed)"
        if fault and taken:
            more = "more than " if taken >= MAX_LINES - 1 else ""
            yield (
                number,
                f"{fault}: a quote that is opened here takes in {more}{taken} lines behind it; "
                "close the quote, or write it twice if it is part of the caption",
            )
            start += 1
            continue
        start += 1 + taken
        if fault:
            yield number, fault
        elif row:
            if not width:
                names = [name.strip().lower() for name in row]
                column = next((names.index(n) for n in file_columns if n in names), 0)
                width = len(row)
            yield number, row


def _limited(lines: Sequence[str], start: int) -> Iterator[str]:
    """The lines from this index on, `MAX_LINES` at most."""
    for index in range(start, min(start + MAX_LINES, len(lines))):
        yield lines[index]


def _is_row(line: str, column: int, width: int) -> bool:
    """Whether a line is a row of its own, with the name of a picture file.

    Args:
        line: A line that was read as part of a quoted field.
        column: Index of the column of file names.
        width: Number of columns.
    """
    before, quote, _ = line.partition('"')
    fields = before.split(",")
    # A quote ends the comparison: `at sea",b.jpg` closes the field that it is in.
    enough = len(fields) > column + 1 if quote else len(fields) == width
    return enough and fields[column].strip().lower().endswith(PICTURE_EXTENSIONS)
