"""What people see of a run: a line for each picture, and what became of all of them at the end."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from client.command.folder import Pictures
from client.command.record_formats import Outcome, outcome_fields
from client.command.run import Run
from client.results import CaptionResult

#: Shows people the outcome for a picture.
Reporter = Callable[[Path, Outcome], None]


def print_json(file: Path, outcome: Outcome) -> None:
    """Print an outcome as a JSON object on a line of standard output."""
    print(json.dumps({"file": str(file), **outcome_fields(outcome)}), flush=True)


def print_captions(file: Path, outcome: Outcome) -> None:
    """Print a line for each caption; for an error and for warnings on standard error."""
    if isinstance(outcome, CaptionResult):
        for caption in outcome.captions:
            print(f"{file}: {caption.caption}  ({caption.confidence:.2f})", flush=True)
    print_problems(file, outcome)


def print_problems(file: Path, outcome: Outcome) -> None:
    """Print the error, or the warnings, of a picture on standard error."""
    if isinstance(outcome, CaptionResult):
        for warning in outcome.warnings:
            print(f"{file}: warning: {warning}", file=sys.stderr, flush=True)
    else:
        print(f"{file}: {outcome.message} ({outcome.code})", file=sys.stderr, flush=True)


def print_nothing(file: Path, outcome: Outcome) -> None:
    """Leave an outcome to the files that hold it, and to the table at the end."""


def closing_lines(run: Run, pictures: Pictures, seconds: float) -> list[str]:
    """Sentences that say what became of all pictures of a run.

    Args:
        run: It has ended.
        pictures: What it was given.
        seconds: How long it took.
    """
    tally = run.tally
    counts = [f"{tally.captioned:,} captioned"]
    if tally.skipped:
        counts.append(f"{tally.skipped:,} skipped (they had an answer)")
    counts.append(f"{tally.failed:,} failed")
    took = f"{seconds:.1f} s"
    if tally.captioned:
        took += f", {tally.captioned / max(seconds, 1e-3):.1f} pictures/s"
    lines = [f"{', '.join(counts)}; {took}"]
    passed_over = []
    if pictures.others:
        passed_over.append(f"{_count(pictures.others, 'file')} without the name of a picture")
    if pictures.folders_left:
        passed_over.append(f"{_count(pictures.folders_left, 'folder')} (--recursive reads them)")
    if passed_over:
        lines.append(f"passed over: {', '.join(passed_over)}")
    if run.ended_by is not None:
        lines.append(
            f"stopped at the first {run.ended_by.code}, which every other picture would get too"
        )
    return lines


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
