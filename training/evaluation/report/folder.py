"""The report folder of an evaluation: metrics.json, captions.jsonl, the page and the chart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from training.data.dataset import CaptionDataset
from training.evaluation.report.page import (
    Section,
    figures_table,
    settings_of,
    write_page,
)
from training.evaluation.report.scores_chart import draw_chart
from training.evaluation.scores.checks import Checks

#: Keys of `metrics.json` and `evaluation.json`: name of the data set, SHA-256 of its captions.json.
DATA_SET, CAPTIONS = "data_set", "captions_sha256"
#: Further keys: tokenizer of the scores; by split the pictures, and the fewest and the most
#: references of one.
TOKENIZER, REFERENCES = "tokenizer", "references"


def metrics_of(dataset: CaptionDataset, sections: Mapping[str, Section]) -> dict[str, Any]:
    """What metrics.json says of every evaluation.

    Args:
        dataset: The data set.
        sections: Split -> what was found, with `Section.scores`.
    """
    metrics: dict[str, Any] = {
        split: {name: round(value, 4) for name, value in section.figures.items()}
        for split, section in sections.items()
    }
    metrics[DATA_SET] = dataset.root.resolve().name
    with (dataset.root / "captions.json").open("rb") as file:
        metrics[CAPTIONS] = hashlib.file_digest(file, "sha256").hexdigest()
    scores = {split: own.scores for split, own in sections.items() if own.scores is not None}
    metrics[TOKENIZER] = ", ".join(dict.fromkeys(own.tokenizer for own in scores.values()))
    metrics[REFERENCES] = {
        split: dict(
            zip(("pictures", "fewest", "most"), (len(own.cider), *own.references), strict=True)
        )
        for split, own in scores.items()
    }
    return metrics


def write_report(
    out: Path,
    pictures: int,
    sections: Mapping[str, Section],
    notes: Sequence[str],
    rows: Sequence[str],
    metrics: Mapping[str, Any],
    checks: Checks | None,
) -> None:
    """Write the files of the report folder and print the table.

    Args:
        out: The folder.
        pictures: Pictures of each split on the page, at most.
        sections: Split -> what to show.
        notes: Lines for the reader.
        rows: The lines of captions.jsonl.
        metrics: Content of metrics.json.
        checks: The checks of the data set, or None.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    (out / "captions.jsonl").write_text("\n".join(rows) + "\n")
    write_page(out / "captions.html", "Captions", sections, notes, pictures, checks)
    figures = {split: section.figures for split, section in sections.items()}
    draw_chart(out / "scores.png", figures, checks, settings_of(sections))
    console = Console()
    console.print(figures_table(figures, checks, settings_of(sections)))
    for note in notes:
        console.print(f"note: {note}", highlight=False)
    print(f"page: {out / 'captions.html'}")
