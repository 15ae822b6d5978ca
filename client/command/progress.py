"""The progress of a run on a terminal: how many, how fast, and how long it will take."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

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
from rich.text import Text


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        """Pictures a second, lately."""
        return Text("" if task.speed is None else f"{task.speed:.1f}/s")


class Shown:
    """A line of progress on standard error; nothing where that is no terminal.

    Pictures that are skipped count neither as done nor as to be done: the rate is that of captions.

    Args:
        console: Of standard error.
        files: All files of the run. They are counted in a thread, while captions come already.
        skipped: How many of them were skipped until now.
        hidden: Whether to show nothing on a terminal either.
    """

    def __init__(
        self,
        console: Console,
        files: Iterable[Path],
        skipped: Callable[[], int],
        *,
        hidden: bool = False,
    ) -> None:
        self._progress = Progress(
            TextColumn("captioning"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=hidden or not console.is_terminal,
            redirect_stdout=sys.stdout.isatty(),  # not where captions go to a file
        )
        self._files, self._skipped = files, skipped
        self._total: int | None = None
        self._task = self._progress.add_task("captioning", total=None)

    def __enter__(self) -> Shown:
        """Show it, and begin to count."""
        if not self._progress.disable:
            threading.Thread(target=self._count, daemon=True).start()
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take it away."""
        self._progress.stop()

    def advance(self) -> None:
        """One picture is done."""
        total = None if self._total is None else self._total - self._skipped()
        self._progress.update(self._task, advance=1, total=total)

    def _count(self) -> None:
        self._total = sum(1 for _ in self._files)
