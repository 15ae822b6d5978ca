"""An evaluation from settings to reports; `training.evaluate` is the command."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor

from model.artifact import Artifact
from model.checkpoint import EVALUATION, Checkpoint, read_evaluation, weights_sha256
from model.refusal import Refusal
from training.config import Evaluate
from training.data.dataset import CaptionDataset
from training.data.seen_images import FILE, count_seen
from training.device import chosen_device
from training.evaluation.captioning import caption_split, decode_pixels
from training.evaluation.checks import Checks, SplitChecks, find_checks
from training.evaluation.forced_choice import choices
from training.evaluation.model_card import load_card, write_card
from training.evaluation.on_device import artifact_on
from training.evaluation.precision_gate import Gate, gates, lines
from training.evaluation.reliability import Judged
from training.evaluation.report import Section, Shown, draw_chart, figures_table, write_page
from training.evaluation.right import HUMAN_CIDER, RIGHT
from training.evaluation.scoring import Scores, score
from training.limits import check_limits

#: Keys of `metrics.json` and `evaluation.json`: name of the data set, SHA-256 of its captions.json.
DATA_SET, CAPTIONS = "data_set", "captions_sha256"
#: Another key, if the captioner has a quality head: by split, the curve of the captions kept.
KEPT = "kept_by_quality"
#: Further keys: tokenizer of the scores; by split the number of pictures that were trained on.
TOKENIZER, SEEN = "tokenizer", "seen_in_training"


def evaluate(settings: Evaluate, own: bool = True) -> dict[str, dict[str, float]]:
    """Caption, score and report.

    Args:
        settings: See `training.config.Evaluate`.
        own: The data set is that of the pipeline, so the checkpoint's evaluation.json is replaced.

    Returns:
        Split name -> its figures.

    Raises:
        Refusal: The data set has none of the splits, a picture or the checkpoint's model card
            cannot be read, or there is no such device.
    """
    check_limits(settings, "evaluate")
    dataset = CaptionDataset.load(settings.data)
    splits = [split for split in settings.splits if dataset.splits.get(split)]
    if not splits:
        raise Refusal(
            f"{settings.data} has none of the splits {', '.join(settings.splits)}; it has "
            f"{', '.join(dataset.splits)}; name them: evaluate.splits=[...]"
        )
    device = chosen_device(settings.device, "evaluate.device")
    checkpoint = Checkpoint.load(settings.checkpoint)
    load_card(Path(settings.checkpoint), checkpoint)  # refuses a damaged one before the captions
    checks = find_checks(dataset.root)
    if checks is None:
        print(
            f"note: {settings.data} has no truth about its pictures to check captions against; "
            "they are scored against its captions only"
        )
    artifact = artifact_on(checkpoint, device)
    sections: dict[str, Section] = {}
    notes: list[str] = []
    rows: list[str] = []
    tokenizers: list[str] = []
    seen = {s: count_seen(settings.checkpoint, dataset, dataset.ids(s)) for s in splits}
    warnings = _seen_warnings(dataset, seen)
    for split in splits:
        checked = checks.split() if checks else None
        look = partial(_choose, artifact, dataset, checked) if checked else None
        captions = caption_split(artifact, dataset, split, settings, look)
        generated = {image_id: caption.text for image_id, caption in captions.items()}
        references = {image_id: dataset.captions[image_id] for image_id in generated}
        scores = score(generated, references)
        figures = dict(scores.figures)
        false: dict[int, Any] = {}
        if checked:
            false = {i: checked.add(i, text) for i, text in generated.items()}
            figures |= checked.figures()
        judged = None
        if checkpoint.quality:
            right = [not false[i] for i in generated] if checked else _agreeing(scores)
            judged = Judged(
                [captions[i].quality or 0.0 for i in generated],
                [captions[i].confidence for i in generated],
                right,
            )
            figures |= judged.figures()
        shown = [
            Shown(
                file=dataset.files[i],
                caption=generated[i],
                references=references[i],
                cider=scores.cider[i],
                false=false.get(i, ()),
                confidence=captions[i].confidence,
                quality=captions[i].quality,
            )
            for i in generated
        ]
        sections[split] = Section(figures, shown, judged.curve() if judged else ())
        notes += [note for note in scores.notes if note not in notes]
        tokenizers += [scores.tokenizer] if scores.tokenizer not in tokenizers else []
        for i, caption in captions.items():
            line = {
                "split": split,
                "image_id": i,
                "caption": caption.text,
                "confidence": round(caption.confidence, 4),
                **({} if caption.quality is None else {"quality": round(caption.quality, 4)}),
                "CIDEr": round(scores.cider[i], 4),
            }
            rows.append(json.dumps(line))
    figures_by_split = {split: dict(section.figures) for split, section in sections.items()}
    metrics: dict[str, Any] = {
        split: {name: round(value, 4) for name, value in own_figures.items()}
        for split, own_figures in figures_by_split.items()
    }
    if settings.gate_images:
        found = precision_gates(checkpoint, dataset, splits[0], settings)
        metrics["precisions"] = {name: gate.to_dict() for name, gate in found.items()}
    if checkpoint.quality:
        metrics[KEPT] = {
            split: [{n: round(v, 4) for n, v in kept._asdict().items()} for kept in section.kept]
            for split, section in sections.items()
        }
    metrics["weights_sha256"] = weights_sha256(settings.checkpoint)
    metrics[DATA_SET] = dataset.root.resolve().name
    with (dataset.root / "captions.json").open("rb") as file:
        metrics[CAPTIONS] = hashlib.file_digest(file, "sha256").hexdigest()
    metrics[TOKENIZER] = ", ".join(tokenizers)
    if all(counts is not None for counts in seen.values()):
        metrics[SEEN] = seen
    _write_report(settings, sections, warnings + notes, rows, metrics, checks)
    keep_evaluation(Path(settings.checkpoint), metrics, own)
    card = write_card(
        Path(settings.checkpoint), checkpoint, dataset, figures_by_split, checks, warnings
    )
    print(f"card: {card}")
    return figures_by_split


def _agreeing(scores: Scores) -> list[bool]:
    """Which captions agree with their references at least half as much as a person's does."""
    human = scores.figures.get("human_CIDEr", HUMAN_CIDER)
    return [each >= RIGHT * human for each in scores.cider.values()]


def _choose(
    artifact: Artifact,
    dataset: CaptionDataset,
    checked: SplitChecks,
    image_ids: Sequence[int],
    features: Tensor,
) -> None:
    """Let the captioner choose between the references of a batch and false captions like them."""
    pairs, kinds = [], []
    for row, image_id in enumerate(image_ids):
        for true, false, kind in checked.contrasts(dataset.captions[image_id]):
            pairs.append((row, true, false))
            kinds.append(kind)
    for kind, right in zip(kinds, choices(artifact, features, pairs), strict=True):
        checked.choose(kind, right)


def _seen_warnings(
    dataset: CaptionDataset, seen: Mapping[str, Mapping[str, int] | None]
) -> list[str]:
    """Sentences on pictures that the captioner was trained on.

    Args:
        dataset: The data set of the evaluation.
        seen: Split -> what `count_seen` gave for it.
    """
    warnings = []
    for split, counts in seen.items():
        if counts is None:
            return [
                "It is not known whether the captioner was trained on these pictures: its "
                f"checkpoint has no {FILE}, which training writes."
            ]
        if sum(counts.values()):
            which = " and ".join(f"{n} in split {s}" for s, n in counts.items() if n)
            warnings.append(
                f"The captioner was trained on pictures of {split}: of {len(dataset.ids(split))} "
                f"pictures {which} of its training data. The figures of {split} are too good "
                "because of that."
            )
    return warnings


def precision_gates(
    checkpoint: Checkpoint, dataset: CaptionDataset, split: str, settings: Evaluate
) -> dict[str, Gate]:
    """Gates of all precisions, on the first pictures of a split; printed too."""
    ids = dataset.ids(split)[: settings.gate_images]
    files = [dataset.files[i] for i in ids]
    decoded = decode_pixels(checkpoint.captioner.config.preprocessing, files, settings)
    pixels = dict(zip(ids, (p for p in decoded if not isinstance(p, str)), strict=True))
    references = {i: dataset.captions[i] for i in ids}
    found = gates(checkpoint, pixels, references, settings.batch_size)
    for line in lines(found, len(ids)):
        print(line)
    return found


def keep_evaluation(checkpoint: Path, metrics: dict[str, Any], own: bool) -> bool:
    """Write the figures beside the weights, where the export finds them.

    Gates of an older evaluation on the same data set stay if this one left them out.

    Args:
        checkpoint: The checkpoint folder.
        metrics: Content of metrics.json.
        own: The data set is that of the pipeline; else figures on another data set stay.

    Returns:
        Whether they were written.
    """
    before = read_evaluation(checkpoint) or {}
    same_data = before.get(CAPTIONS) == metrics.get(CAPTIONS)
    if before and not same_data and not own:
        print(
            f"note: {checkpoint / EVALUATION} stays as it is, with the figures on "
            f"{before.get(DATA_SET, 'another data set')}; those on {metrics.get(DATA_SET)} are in "
            "the report and in the model card"
        )
        return False
    if same_data and "precisions" in before and "precisions" not in metrics:
        metrics = {**metrics, "precisions": before["precisions"]}
    aside = checkpoint / f"{EVALUATION}.partial"
    aside.write_text(json.dumps(metrics, indent=2) + "\n")
    aside.replace(checkpoint / EVALUATION)
    return True


def _write_report(
    settings: Evaluate,
    sections: dict[str, Section],
    notes: list[str],
    rows: list[str],
    metrics: dict[str, Any],
    checks: Checks | None,
) -> None:
    """Write the files of the report folder and print the table."""
    out = Path(settings.out)
    out.mkdir(parents=True, exist_ok=True)
    figures = {split: section.figures for split, section in sections.items()}
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    (out / "captions.jsonl").write_text("\n".join(rows) + "\n")
    write_page(out / "captions.html", "Captions", sections, notes, settings.page_images, checks)
    draw_chart(out / "scores.png", figures, checks)
    console = Console()
    console.print(figures_table(figures, checks))
    for note in notes:
        console.print(f"note: {note}", highlight=False)
    print(f"page: {out / 'captions.html'}")
