"""The model card of a checkpoint folder: where the captioner comes from, its figures, its limits.

It is `README.md` in Hugging Face's form: metadata between two lines of dashes, with every figure in
the hub's `model-index`, then Markdown. An evaluation writes a new card from `training.json`. In a
card that exists it replaces the section on its own data set and the figures of that data set; all
else stays, such as a licence. Another training changes its own block and takes the figures out (see
`training.evaluation.report.retrained_card`). Neither adds a licence, because only the owner of a
captioner can decide on one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from huggingface_hub import EvalResult, ModelCard

from model.checkpoint import CARD, Checkpoint, weights_sha256
from training.data.dataset import CaptionDataset
from training.evaluation.report.marked_block import replaced_block
from training.evaluation.report.page import SETTING, Figures, number, titles
from training.evaluation.report.retrained_card import parse_card, training_block
from training.evaluation.scores.checks import Checks
from training.evaluation.scores.domains import count_pictures


def write_card(
    folder: Path,
    checkpoint: Checkpoint,
    dataset: CaptionDataset,
    figures: Figures,
    checks: Checks | None = None,
    warnings: Sequence[str] = (),
    settings: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """Put the figures of one data set into the card of a checkpoint folder.

    Args:
        folder: The checkpoint folder.
        checkpoint: The checkpoint that was loaded from it.
        dataset: The data set it was evaluated on.
        figures: The figures of the evaluation.
        checks: The checks of the data set, or None.
        warnings: Sentences that come first among the limits.
        settings: Split -> `Scores.setting`, what CIDEr depends on beside the captions.

    Returns:
        The card's file.

    Raises:
        Refusal: The card that is there has metadata that cannot be read.
    """
    file, card = folder / CARD, load_card(folder, checkpoint)
    name = dataset.root.resolve().name
    data: Any = card.data
    data.pipeline_tag = data.pipeline_tag or "image-to-text"
    data.tags = data.tags or ["image-captioning", "clipcap"]
    data.model_name = data.model_name or folder.resolve().name
    others = [result for result in data.eval_results or [] if result.dataset_type != name]
    data.eval_results = others + _results(name, dataset.description, figures, checks)
    section = _section(folder, dataset, figures, checks, warnings, settings)
    card.text = _with_section(card.text, name, section)
    aside = file.with_name(f"{CARD}.partial")
    aside.write_text(str(card), encoding="utf-8")
    os.replace(aside, file)
    return file


def load_card(folder: Path, checkpoint: Checkpoint) -> ModelCard:
    """The card of a checkpoint that was loaded from this folder, or a new one.

    Raises:
        Refusal: The card that is there has metadata that cannot be read.
    """
    text = checkpoint.card if checkpoint.card is not None else _new_card(folder, checkpoint)
    return parse_card(text, folder / CARD)


def _results(
    name: str, description: str, figures: Figures, checks: Checks | None
) -> list[EvalResult]:
    """The figures in the form of the hub's `model-index`."""
    return [
        EvalResult(
            task_type="image-to-text",
            task_name="Image captioning",
            dataset_type=name,
            dataset_name=description or name,
            dataset_split=split,
            metric_type=key.lower(),
            metric_name=title,
            metric_value=round(own[key], 4),
        )
        for split, own in figures.items()
        for key, title in titles(checks).items()
        if key in own
    ]


def _with_section(text: str, name: str, section: str) -> str:
    """Markdown with the section of a data set in place of an older one, or at the end."""
    begin, end = f"<!-- evaluation on {name} -->", f"<!-- /evaluation on {name} -->"
    replaced = replaced_block(text, begin, section, end)
    return replaced or f"{text.rstrip()}\n\n{begin}\n{section}\n{end}\n"


def _section(
    folder: Path,
    dataset: CaptionDataset,
    figures: Figures,
    checks: Checks | None,
    warnings: Sequence[str],
    settings: Mapping[str, str],
) -> str:
    """Figures and limits on one data set."""
    name = dataset.description or dataset.root.resolve().name
    counts = ", ".join(f"{s} {count_pictures(dataset, s, figures):,}" for s in figures)
    lines = [f"| | {' | '.join(figures)} |", f"|---|{'---:|' * len(figures)}"]
    for key, title in titles(checks).items():
        if any(key in own for own in figures.values()):
            row = (number(key, own[key], checks) if key in own else "" for own in figures.values())
            lines.append(f"| {title} | {' | '.join(row)} |")
    if settings:
        cells = " | ".join(settings.get(split, "") for split in figures)
        lines.append(f"| {SETTING} | {cells} |")
    limits = "\n".join(f"- {limit}" for limit in [*warnings, *_limits(name, figures, checks)])
    return (
        f"## Figures on {name}\n\n" + "\n".join(lines) + "\n\n"
        f"Pictures: {counts}. Measured by `python -m training.evaluate` with its own defaults of "
        f"captioning, on weights with SHA-256 `{weights_sha256(folder)}`.\n\n"
        f"## Limits, as measured on {name}\n\n{limits}"
    )


def _limits(name: str, figures: Figures, checks: Checks | None) -> list[str]:
    """Sentences on what the figures say against the captioner."""
    limits = [
        f"It was measured on {name} only. A picture of another kind gets a caption in the words of "
        "these pictures, with the same confidence."
    ]
    checked = False
    for split, own in figures.items():
        human, ours = own.get("human_CIDEr"), own.get("CIDEr_fewer_references")
        if human is not None and ours is not None:
            verdict = (
                "captions by people are closer to those of other people"
                if ours < human
                else "it keeps to the usual words, which is not to see more than a person"
            )
            limits.append(
                f"{split}: scored as one of the references is against the others, it gets a CIDEr "
                f"of {ours:.2f}, a person {human:.2f}: {verdict}."
            )
        if "CHAIR_i" in own:
            limits.append(
                f"{split}: {own['CHAIR_i']:.1%} of the objects that its captions mention are not "
                f"in the picture (CHAIR), and {own['CHAIR_s']:.1%} of the captions mention one."
            )
            checked = True
        if checks and (found := checks.limits(split, own)):
            limits += found
            checked = True
    ranked = sorted((own["CIDEr"], split) for split, own in figures.items() if "CIDEr" in own)
    if len(ranked) > 1:
        (low, worst), (high, best) = ranked[0], ranked[-1]
        limits.append(f"CIDEr falls from {high:.2f} on {best} to {low:.2f} on {worst}.")
    if not checked:
        limits.append(
            "False statements in its captions were not counted: these figures compare its words "
            "with those of people, not with the picture."
        )
    return limits


def _new_card(folder: Path, checkpoint: Checkpoint) -> str:
    """The card of a captioner without one: its parts, and the record of its training."""
    block = training_block(checkpoint.captioner.config.mapper, checkpoint.training)
    return (
        f"# Image captioner `{folder.resolve().name}`\n\n"
        'A ClipCap captioner (Mokady, Hertz, Bermano: "ClipCap: CLIP Prefix for Image '
        'Captioning",\n[arXiv 2111.09734](https://arxiv.org/abs/2111.09734)): a CLIP encoder,\n'
        f"GPT-2, and between them a mapper.\n\n{block}\n\n"
        "## How to use it\n\nWith `DIR` standing for this folder:\n\n"
        "```sh\nmake serve CHECKPOINT=DIR\n"
        "curl -T photo.jpg http://127.0.0.1:8080/predictions/clipcap\n```\n"
    )
