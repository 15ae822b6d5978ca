"""Scores a file of anybody's captions as an evaluation scores a captioner's."""

from __future__ import annotations

from pathlib import Path

from training.config import Evaluate
from training.data.dataset import CaptionDataset
from training.device import chosen_device
from training.evaluation.measures import Measures, caption_line
from training.evaluation.report.folder import metrics_of, write_report
from training.evaluation.report.page import Section
from training.evaluation.results_file import read_results
from training.evaluation.scores.checks import find_checks
from training.evaluation.scores.domains import scored_splits, with_overall
from training.limits import check_limits


def score_results(settings: Evaluate) -> dict[str, dict[str, float]]:
    """Score the captions of the file `settings.results`, and write a report.

    Neither a checkpoint nor its model card is read or changed.

    Args:
        settings: See `training.config.Evaluate`.

    Returns:
        Split -> its figures.

    Raises:
        Refusal: The captions do not fit the data set (see `results_file.read_results`), or cannot
            be measured.
    """
    assert settings.results is not None
    check_limits(settings, "evaluate")
    file, dataset = Path(settings.results), CaptionDataset.load(settings.data)
    splits = scored_splits(dataset, settings.splits)
    results = read_results(file, dataset, splits, settings.allow_empty)
    checks = find_checks(dataset.root)
    measures = Measures(dataset, settings, chosen_device(settings.device, "evaluate.device"))
    measures.check(list(results.splits))
    sections: dict[str, Section] = {}
    notes = list(results.notes)
    rows: list[str] = []
    for split, generated in with_overall(results.splits).items():
        measured = measures.measure(split, generated, checks.split() if checks else None)
        sections[split] = Section(measured.figures, measured.shown, (), measured.scores)
        notes += [note for note in measured.notes if note not in notes]
        if split in results.splits:
            rows += [
                caption_line(split, i, text, **measured.rows[i]) for i, text in generated.items()
            ]
    metrics = metrics_of(dataset, sections) | measures.names() | {"results": file.name}
    out = Path(settings.out)
    write_report(out, settings.page_images, sections, notes, rows, metrics, checks)
    return {split: dict(section.figures) for split, section in sections.items()}
