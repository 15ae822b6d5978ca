"""What people see of a job: its progress, and a table of what became of all pictures."""

from __future__ import annotations

import datetime
import time
from types import TracebackType

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from scale.output.rows import Counts

#: Seconds between two lines of progress where standard error is no terminal.
SECONDS_APART = 10.0


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        """Pictures a second, lately."""
        return Text("" if task.speed is None else f"{task.speed:.1f}/s")


class Shown:
    """Progress on standard error: a bar on a terminal, else a line now and then.

    Args:
        total: Pictures of the job.
        done: Pictures that earlier runs captioned.
        console: Of standard error.
    """

    def __init__(self, total: int, done: int, console: Console) -> None:
        self._total, self._before, self._done = total, done, done
        self._console, self._errors = console, 0
        self._begin = self._last = time.monotonic()
        self._progress = Progress(
            TextColumn("captioning"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[errors]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=total, completed=done, errors="")

    def __enter__(self) -> Shown:
        """Show it."""
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take it away."""
        self._progress.stop()

    @property
    def done(self) -> int:
        """Pictures that are written."""
        return self._done

    def advance(self, counts: Counts) -> None:
        """More pictures are written."""
        self._done += counts.rows
        self._errors += counts.errors.total()
        errors = f"{self._errors:,} errors" if self._errors else ""
        self._progress.update(self._task, completed=self._done, errors=errors)
        now = time.monotonic()
        if self._console.is_terminal or now - self._last < SECONDS_APART:
            return
        self._last = now
        rate = (self._done - self._before) / (now - self._begin)
        left = datetime.timedelta(seconds=round((self._total - self._done) / rate))
        line = f"{self._done:,} of {self._total:,} pictures, {rate:.1f}/s, {left} left"
        self._console.print(f"{line}, {errors}" if errors else line, highlight=False)


def print_summary(lines: list[tuple[str, int]], closing: str) -> None:
    """Print what became of all pictures.

    Args:
        lines: What, and how many pictures.
        closing: A sentence below.
    """
    table = Table(box=SIMPLE_HEAD)
    table.add_column("result")
    table.add_column("pictures", justify="right")
    for what, count in lines:
        table.add_row(what, f"{count:,}")
    console = Console()
    console.print(table)
    console.print(closing, highlight=False, soft_wrap=True)
