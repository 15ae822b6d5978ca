"""Writes the tables of `docs/speed.md` from what `benchmarks.decode` measured last.

`python -m benchmarks.tables` reads `benchmarks/results/decode.json` and measures nothing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from typing import Any

from benchmarks.decode import RESULTS
from benchmarks.decode_report import TABLES, TARGET_COLUMNS, targets
from benchmarks.readme import ROOT
from model.refusal import Refusal
from training.command import command

PAGE = ROOT / "docs" / "speed.md"
BEGIN, END = "<!-- figures: python -m benchmarks.tables -->", "<!-- /figures -->"


def tables(results: dict[str, Any]) -> str:
    """All that stands between the marks."""
    where = (
        f"Measured with `{results['command']}` on {results['processor']}, {results['threads']} "
        f"threads ({', '.join(results['instructions'])}), torch {results['torch']}, transformers "
        f"{results['transformers']}, {results['date']}: medians of contestants in turn."
    )
    parts = [where]
    for title, columns, rows in TABLES:
        parts += [f"## {title}", markdown(columns, rows(results))]
    found = targets(results)
    parts += ["## Targets", markdown(TARGET_COLUMNS, [each.row() for each in found])]
    missed = [each for each in found if not each.passed]
    for what, got, wanted, _ in (each.row() for each in missed):
        parts.append(f"Missed: {what} is {got}, and was to be {wanted}.")
    parts += results["missing"]
    return "\n\n".join(parts)


def markdown(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of Markdown."""
    head = list(columns)
    lines = [head, ["---"] * len(head), *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def between_marks(text: str, new: str) -> str:
    """The page with this between its marks.

    Raises:
        Refusal: It has none.
    """
    if BEGIN not in text or END not in text:
        raise Refusal(f"{PAGE} lacks the marks {BEGIN} and {END}; put them where the tables go")
    return f"{text.partition(BEGIN)[0]}{BEGIN}\n{new}\n{END}{text.partition(END)[2]}"


def main() -> None:
    """Write the page."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    file = RESULTS / "decode.json"
    if not file.exists():
        raise Refusal(f"{file} is missing; run python -m benchmarks.decode first")
    PAGE.write_text(between_marks(PAGE.read_text(), tables(json.loads(file.read_text()))))


if __name__ == "__main__":
    command(main)
