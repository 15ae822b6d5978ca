"""A table of figures in Markdown, and the marks between which a page has them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from model.refusal import Refusal


@dataclasses.dataclass(frozen=True)
class Table:
    """Figures as text.

    Attributes:
        title: What it shows.
        columns: Names; all columns but the first hold figures.
        rows: A cell for each column.
        note: How to read it, or empty.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def markdown(self) -> str:
        """The table and its note, without the title."""
        rule = ["---", *["---:"] * (len(self.columns) - 1)]
        text = "\n".join(f"| {' | '.join(row)} |" for row in (self.columns, rule, *self.rows))
        return f"{text}\n\n{self.note}" if self.note else text

    def section(self) -> str:
        """The table under its title, a heading of the third level."""
        return f"### {self.title}\n\n{self.markdown()}"


def put_between_marks(file: Path, begin: str, new: str, end: str) -> None:
    """Replace what a page has between two marks.

    Raises:
        Refusal: The page lacks one of the marks.
    """
    text = file.read_text()
    if begin not in text or end not in text:
        raise Refusal(f"{file} lacks the marks {begin} and {end}; put them where the figures go")
    file.write_text(f"{text.partition(begin)[0]}{begin}\n{new}\n{end}{text.partition(end)[2]}")
