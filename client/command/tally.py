"""What became of the pictures of a run: how many have captions, and which failures there were."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from client.errors import CaptionError

#: Pictures that are named for each kind of failure.
EXAMPLES = 3


@dataclasses.dataclass
class Failures:
    """The failures with one code.

    Attributes:
        message: That of the first one.
        examples: The first pictures.
        count: All of them.
    """

    message: str
    examples: list[Path] = dataclasses.field(default_factory=list)
    count: int = 0


@dataclasses.dataclass
class Tally:
    """Counts of a run; it holds no results.

    Attributes:
        captioned: Pictures that got captions now.
        skipped: Pictures that had an answer already.
        failures: Code of the error -> its failures.
    """

    captioned: int = 0
    skipped: int = 0
    failures: dict[str, Failures] = dataclasses.field(default_factory=dict)

    @property
    def failed(self) -> int:
        """How many pictures failed."""
        return sum(each.count for each in self.failures.values())

    def fail(self, file: Path, error: CaptionError) -> None:
        """Count a failure."""
        found = self.failures.setdefault(error.code, Failures(error.message))
        found.count += 1
        if len(found.examples) < EXAMPLES:
            found.examples.append(file)

    def print_failures(self, console: Console) -> None:
        """Print a table of the failures, the most frequent first; nothing if there are none."""
        if not self.failures:
            return
        table = Table(box=SIMPLE_HEAD)
        table.add_column("error", no_wrap=True)
        table.add_column("pictures", no_wrap=True, justify="right")
        table.add_column("reason of the first")
        table.add_column("such as", overflow="fold")
        for code, found in sorted(self.failures.items(), key=lambda item: -item[1].count):
            examples = "\n".join(map(str, found.examples)).encode(errors="backslashreplace")
            cells = (code, f"{found.count:,}", found.message, examples.decode())
            table.add_row(*(Text(cell) for cell in cells))  # a name may have [brackets] of markup
        console.print(table)
