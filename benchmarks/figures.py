"""Figures of benchmarks in pages of docs/, between two marks; the first names the command."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.refusal import Refusal
from training.evaluation.report.marked_block import replaced_block

END = "<!-- /figures -->"


def measured(written: Mapping[str, Any]) -> str:
    """The sentence above figures: the command, the machine and the date.

    Args:
        written: Results as `benchmarks.machine.write_results` gives them.
    """
    return (
        f"Measured with `{written['command']}`, {written['cores']} cores, {written['processor']}, "
        f"{written['date']}."
    )


def begin(module: str) -> str:
    """The mark before the figures of a command, such as `benchmarks.serve`."""
    return f"<!-- figures: python -m {module} -->"


def shown_figures(page: Path, module: str) -> str:
    """The figures that a page has between the marks of a command."""
    text = page.read_text(encoding="utf-8")
    return text.partition(f"{begin(module)}\n")[2].partition(f"\n{END}")[0]


def check_marks(page: Path, module: str) -> None:
    """Refuse a page without a place for figures, before anything is measured.

    Raises:
        Refusal: The page lacks one of the marks.
    """
    if replaced_block(page.read_text(encoding="utf-8"), begin(module), "", END) is None:
        raise Refusal(
            f"{page} lacks the marks {begin(module)} and {END}; put them where the figures go"
        )


def write_figures(page: Path, module: str, figures: str) -> None:
    """Put figures between the marks of a page.

    Args:
        page: A page in Markdown.
        module: The command that measured them.
        figures: Text in Markdown.

    Raises:
        Refusal: The page lacks one of the marks.
    """
    check_marks(page, module)
    text = replaced_block(page.read_text(encoding="utf-8"), begin(module), figures, END)
    assert text is not None
    page.write_text(text, encoding="utf-8")
