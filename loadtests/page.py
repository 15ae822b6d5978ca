"""Writes the figures of the load tests that were run here into `docs/operations.md`.

    python -m loadtests.page [--reports DIR]

Run the profiles first, each whole: `make loadtest PROFILE=NAME`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.pages import table
from deploy.properties import ROOT
from loadtests.profiles import LoadTestError, read_profiles
from training.evaluation.report.marked_block import replaced_block

PAGE = ROOT / "docs" / "operations.md"
BEGIN, END = "<!-- load: python -m loadtests.page -->", "<!-- /load -->"
#: Head of a column -> figure.
COLUMNS = {
    "requests": "requests",
    "answered/s": "requests_per_second",
    "median": "median_ms",
    "p95": "p95_ms",
    "p99 (ms)": "p99_ms",
    "503": "refused",
    "wrong": "wrong_replies",
}


def page_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """A row for each profile that was run.

    Args:
        results: Name of the profile -> content of its `summary.json`.
    """
    rows = []
    for name, result in results.items():
        figures = result["figures"]
        # What the other columns do not have, of the figures that have a limit.
        limited = dict.fromkeys(limit.partition("_")[2] for limit in result["limits"])
        more = [
            f"{figure.replace('_', ' ')} {figures[figure]:g}"
            for figure in limited
            if figure in figures and figure not in (*COLUMNS.values(), "unanswered", "ties_percent")
        ]
        cells = {figure: figures.get(figure, "") for figure in COLUMNS.values()}
        rows.append({"profile": name, **cells, "more": ", ".join(more)})
    heads = {
        "profile": "{profile}",
        **{head: f"{{{figure}}}" for head, figure in COLUMNS.items()},
        "": "{more}",
    }
    where = {f"{each['cores']} cores, {each['processor']}, {each['date']}" for each in
             results.values()}  # fmt: skip
    return f"{table(heads, rows, '---')}\n\nMeasured on {'; '.join(sorted(where))}."


def write_page(page: Path, reports: Path) -> None:
    """Put the table between the marks of a page.

    Args:
        page: In Markdown.
        reports: Folder with a folder for each profile.

    Raises:
        LoadTestError: No profile was run, one was run in part, or the page lacks the marks.
    """
    results = {
        name: json.loads(file.read_text())
        for name in read_profiles()
        if (file := reports / name / "summary.json").is_file()
    }
    if not results:
        raise LoadTestError(
            f"{reports} has no PROFILE/summary.json; run make loadtest PROFILE=NAME"
        )
    if parts := [name for name, result in results.items() if result["part"] != 1]:
        raise LoadTestError(f"{parts[0]} was run in part; run it whole: make loadtest PROFILE=NAME")
    text = replaced_block(page.read_text(), BEGIN, page_table(results), END)
    if text is None:
        raise LoadTestError(f"{page} lacks the marks {BEGIN} and {END}; put them where it goes")
    page.write_text(text)


def main() -> int:
    """Write the page.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m loadtests.page", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--reports", type=Path, default=ROOT / "reports" / "loadtest")
    given = parser.parse_args()
    try:
        write_page(PAGE, given.reports)
    except LoadTestError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
