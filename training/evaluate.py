"""Evaluate a captioner on splits that it was not trained on.

`python -m training.evaluate [--data DIR] [--checkpoint DIR] [--out DIR]` captions the test splits
of a data set as a server would, and writes

    metrics.json      every score, and the figures of the data set's own checks, by split
    captions.html     sampled pictures with their captions and references, worst and best first
    captions.jsonl    every caption with its confidence and CIDEr
    scores.png        the main figures as a picture
    results_SPLIT.json    the captions of a split in COCO's form, for other tools

It also writes the figures, and the limits that they show, into the checkpoint's model card
(README.md), in a section for each data set. A checkpoint that is given by its name on the hub stays
as it is there: only the report is written.

Two outputs belong to the pipeline: the report folder `evaluate.out`, and `evaluation.json` in the
checkpoint, which holds metrics.json for the export. An evaluation on another data set than the one
in `train.data` leaves both alone. Its report goes to DIR/report, where DIR is that data set, unless
`--out` or `evaluate.out=` is given. It writes evaluation.json only if there is none yet of these
weights, or if the one there is about the same captions.json.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from training.command import arguments, command, given_options
from training.config import Evaluate, load_config

#: Settings of the block `evaluate` that have an option of their own.
NAMES = ("data", "checkpoint", "results", "out")


def read_settings(words: Sequence[str]) -> tuple[Evaluate, bool]:
    """Settings of an evaluation from the words of its command line.

    Returns:
        The settings, and whether their data set is that of the pipeline, `train.data`.

    Raises:
        Refusal: A setting cannot be read.
    """
    parser = arguments(__doc__)
    parser.add_argument("--data", help="evaluate.data: another caption data set")
    parser.add_argument(
        "--checkpoint", help="evaluate.checkpoint: checkpoint folder, or OWNER/NAME on the hub"
    )
    parser.add_argument(
        "--results", metavar="FILE", help="evaluate.results: captions to score, in COCO's form"
    )
    parser.add_argument("--out", help="evaluate.out: folder of the report")
    options = parser.parse_args(words)
    config = load_config(options.overrides)
    settings = dataclasses.replace(config.evaluate, **given_options(options, *NAMES))
    own = Path(settings.data).resolve() == Path(config.train.data).resolve()
    out_given = options.out or any(word.startswith("evaluate.out=") for word in options.overrides)
    if settings.results is not None and not out_given:
        file = Path(settings.results)
        settings = dataclasses.replace(settings, out=str(file.with_name(f"{file.stem}-report")))
    elif not own and not out_given:
        settings = dataclasses.replace(settings, out=str(Path(settings.data) / "report"))
    return settings, own


def main() -> None:
    """Evaluate with the settings of the command line."""
    settings, own = read_settings(sys.argv[1:])
    if settings.results is not None:
        from training.evaluation.score_results import score_results

        score_results(settings)
        return
    from training.evaluation.evaluate import evaluate  # after the settings: it imports torch

    evaluate(settings, own)


if __name__ == "__main__":
    command(main)
