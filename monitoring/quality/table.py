"""The figures as a table in the terminal, and as JSON for programs."""

from __future__ import annotations

import sys
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from monitoring.quality.figures import Quality, Tally
from monitoring.quality.intervals import Estimate


def print_tables(quality: Quality, top: int) -> None:
    """Print the weeks, and the words that were corrected most often.

    Args:
        quality: The figures.
        top: Lines of words at most.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("week", "model"):
        table.add_column(name, no_wrap=True)
    for name in ("feedback", "thumbs", "up", "95 %", "corrected", "CIDEr", "95 %"):
        table.add_column(name, justify="right", no_wrap=True)
    for (week, model, version), tally in sorted(quality.weeks.items()):
        up = _columns(tally.up_share(), "{:.0%}", "{:.0%}")
        cider = _columns(tally.cider.estimate(), "{:.2f}", "{:.1f}")
        counts = str(tally.feedback), str(tally.thumbs), str(tally.corrections)
        table.add_row(week, f"{model} {version}", *counts[:2], *up, counts[2], *cider)
    # As wide as it is where the output is no terminal: a file or a mail has no narrow screen.
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    console.print("95 %: interval. CIDEr: captions against their corrections.")
    if words := quality.words.most_common(top):
        corrected = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        corrected.add_column("corrected", justify="right")
        corrected.add_column("to")
        corrected.add_column("times", justify="right")
        for before, after, times in words:
            corrected.add_row(before or "(nothing)", after or "(nothing)", str(times))
        console.print(corrected, markup=False)


def as_json(quality: Quality, top: int) -> dict[str, Any]:
    """The same figures as a value that JSON can hold."""
    return {
        "weeks": [
            {"week": week, "model": model, "version": version, **_fields(tally)}
            for (week, model, version), tally in sorted(quality.weeks.items())
        ],
        "words": [
            {"before": before, "after": after, "times": times}
            for before, after, times in quality.words.most_common(top)
        ],
    }


def _fields(tally: Tally) -> dict[str, Any]:
    estimates = {"thumbs_up_share": tally.up_share(), "cider": tally.cider.estimate()}
    return {
        "feedback": tally.feedback,
        "thumbs_up": tally.up,
        "thumbs_down": tally.down,
        "corrections": tally.corrections,
        **{name: each and each._asdict() for name, each in estimates.items()},
    }


def _columns(estimate: Estimate | None, value: str, end: str) -> tuple[str, str]:
    """A figure and its interval, as texts."""
    if estimate is None:
        return "-", ""
    return value.format(
        estimate.value
    ), f"{end.format(estimate.low)} to {end.format(estimate.high)}"
