"""Rows of a CSV file, so that a quote that is never closed costs one row and not all behind it.

The standard library reads a quoted field to its closing quote, over any number of lines. If that
quote is missing, the field takes in the lines behind it up to the next quote, or to the end of the
file. Here such a row is a fault, and reading goes on at the next line. Only the lines of one row
are in memory.

Files whose fields are separated by tabs or `|` hold plain text: a quote in them is a character of
the caption, and every line is a row.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from training.sources.picture_extensions import PICTURE_EXTENSIONS

#: Lines of one row, at most; it bounds the time that a file with many unclosed quotes takes.
MAX_LINES = 1000
#: Separators of files that hold plain text without quotes.
PLAIN = ("\t", "|")


def csv_rows(
    text: Iterable[str], file_columns: Sequence[str], separator: str = ",", first: int = 1
) -> Iterator[tuple[int, list[str] | str]]:
    """The rows of a CSV file.

    A quoted field may contain line ends. It counts as unclosed if a line inside of it is a row of
    its own, with the name of a picture file in the column of file names.

    Args:
        text: Its lines, with their line ends.
        file_columns: Names of the column that holds file names, in lower case.
        separator: Of the fields. Blanks behind it are no part of a field.
        first: Number of the first line.

    Returns:
        For each row that is not empty the number of its first line, and its fields, or what is
        wrong with it.
    """
    if separator in PLAIN:
        yield from _plain_rows(text, separator, first)
        return
    ahead = _Lines(text)
    column, width = 0, 0  # of the header: index of the column of files, number of columns
    number = first
    while line := ahead.first():
        fault = None
        if '"' not in line:  # as the standard library would split it, ten times as fast
            row, lines = [field.lstrip(" ") for field in line.rstrip("\r\n").split(separator)], 1
            if row == [""]:
                row = []
        else:
            reader = csv.reader(
                ahead.limited(), strict=True, delimiter=separator, skipinitialspace=True
            )
            try:
                row = next(reader)
            except csv.Error as error:
                row, fault = [], f"cannot be read as CSV ({error})"
            lines = reader.line_num
            inner = ahead.lines(1, lines)
            if not fault and any(_is_row(line, separator, column, width) for line in inner):
                fault = "cannot be read as CSV (a quote is not closed)"
        if fault and lines > 1:
            more = "more than " if lines >= MAX_LINES else ""
            yield (
                number,
                f"{fault}: a quote that is opened here takes in {more}{lines - 1} lines behind it; "
                "close the quote, or write it twice if it is part of the caption",
            )
            lines = 1
        elif fault:
            yield number, fault
        elif row:
            if not width:
                names = [name.strip().lower() for name in row]
                column = next((names.index(n) for n in file_columns if n in names), 0)
                width = len(row)
            yield number, row
        number += lines
        ahead.drop(lines)


def _plain_rows(
    text: Iterable[str], separator: str, first: int
) -> Iterator[tuple[int, list[str] | str]]:
    """The rows of a file without quotes; a cell that a spreadsheet put in quotes loses them."""
    for number, line in enumerate(text, start=first):
        if fields := line.rstrip("\r\n").split(separator) if line.strip() else []:
            yield number, [_unquoted(field) for field in fields] if separator == "\t" else fields


def _unquoted(field: str) -> str:
    """A cell of a spreadsheet: `"a ""red"" boat"` is `a "red" boat`."""
    inner = field[1:-1]
    if len(field) > 1 and field[0] == field[-1] == '"' and '"' not in inner.replace('""', ""):
        return inner.replace('""', '"')
    return field


class _Lines:
    """Lines of a file, of which those of the row that is read can be looked at ahead."""

    def __init__(self, text: Iterable[str]) -> None:
        self._rest = iter(text)
        self._ahead: deque[str] = deque()

    def first(self) -> str:
        """The next line; "" at the end."""
        return self._ahead[0] if self._ahead or self._more() else ""

    def lines(self, start: int, end: int) -> list[str]:
        """The lines from index `start` to before `end`, all of which were read ahead."""
        return [self._ahead[index] for index in range(start, end)]

    def limited(self) -> Iterator[str]:
        """The lines from the next one on, `MAX_LINES` at most."""
        for index in range(MAX_LINES):
            if index == len(self._ahead) and not self._more():
                return
            yield self._ahead[index]

    def drop(self, count: int) -> None:
        """Leave lines behind."""
        for _ in range(count):
            self._ahead.popleft()

    def _more(self) -> bool:
        for line in self._rest:
            self._ahead.append(line)
            return True
        return False


def _is_row(line: str, separator: str, column: int, width: int) -> bool:
    """Whether a line is a row of its own, with the name of a picture file.

    Args:
        line: A line that was read as part of a quoted field.
        separator: Of the fields.
        column: Index of the column of file names.
        width: Number of columns.
    """
    before, quote, _ = line.partition('"')
    fields = before.split(separator)
    # A quote ends the comparison: `at sea",b.jpg` closes the field that it is in.
    enough = len(fields) > column + 1 if quote else len(fields) == width
    return enough and fields[column].strip().lower().endswith(PICTURE_EXTENSIONS)
