"""A table of figures, for the terminal and for a page of Markdown."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table as RichTable

from model.refusal import Refusal


@dataclasses.dataclass(frozen=True)
class Table:
    """Figures as text.

    Attributes:
        title: What it shows, in words.
        columns: Names; all columns but the first hold figures.
        rows: A cell for each column.
        note: A sentence on how to read it, or empty.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def rich(self) -> RichTable:
        """For a terminal."""
        shown = RichTable(title=self.title, title_justify="left", caption=self.note or None)
        for place, name in enumerate(self.columns):
            shown.add_column(name, justify="right" if place else "left")
        for row in self.rows:
            shown.add_row(*row)
        return shown

    def markdown(self) -> str:
        """For a page, the title apart."""
        rule = ["---", *["---:"] * (len(self.columns) - 1)]
        shown = "\n".join(f"| {' | '.join(row)} |" for row in (self.columns, rule, *self.rows))
        return f"{shown}\n\n{self.note}" if self.note else shown


def put_between_marks(file: Path, begin: str, new: str, end: str) -> None:
    """Put text between two marks of a page, in place of what stood there.

    Raises:
        Refusal: It has no such marks.
    """
    text = file.read_text()
    if begin not in text or end not in text:
        raise Refusal(f"{file} lacks the marks {begin} and {end}; put them where the figures go")
    file.write_text(f"{text.partition(begin)[0]}{begin}\n{new}\n{end}{text.partition(end)[2]}")
