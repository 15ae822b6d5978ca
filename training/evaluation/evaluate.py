"""An evaluation from settings to reports; `training.evaluate` is the command."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from model.artifact import Artifact, GeneratedCaption
from model.checkpoint import EVALUATION, Checkpoint, read_evaluation, weights_sha256
from model.pretrained.checkpoint_name import checkpoint_folder, hub_name
from training.config import Evaluate
from training.data.dataset import CaptionDataset
from training.data.seen_images import FILE, count_seen
from training.device import chosen_device
from training.evaluation.captioning import caption_split, decode_pixels
from training.evaluation.measures import Measures, caption_line
from training.evaluation.on_device import artifact_on
from training.evaluation.precision_gate import Gate, gates, lines
from training.evaluation.report.folder import CAPTIONS, DATA_SET, metrics_of, write_report
from training.evaluation.report.model_card import load_card, write_card
from training.evaluation.report.page import Section, settings_of
from training.evaluation.results_file import write_results
from training.evaluation.scores.checks import SplitChecks, find_checks
from training.evaluation.scores.domains import scored_splits, with_overall
from training.evaluation.scores.forced_choice import choices
from training.evaluation.scores.reliability import Judged
from training.evaluation.scores.right import HUMAN_CIDER, RIGHT
from training.evaluation.scores.scoring import Scores
from training.limits import check_limits

#: Key of `metrics.json`, if the captioner has a quality head: by split, the curve of the captions
#: kept.
KEPT = "kept_by_quality"
#: Another key: by split the number of pictures that were trained on.
SEEN = "seen_in_training"


def evaluate(settings: Evaluate, own: bool = True) -> dict[str, dict[str, float]]:
    """Caption, score and report.

    Args:
        settings: See `training.config.Evaluate`.
        own: The data set is that of the pipeline, so the checkpoint's evaluation.json is replaced.

    Returns:
        Split name -> its figures.

    Raises:
        Refusal: The data set has none of the splits, a picture or the checkpoint's model card
            cannot be read, there is no such device, or no such name on the hub.
    """
    check_limits(settings, "evaluate")
    dataset = CaptionDataset.load(settings.data)
    splits = scored_splits(dataset, settings.splits)
    device = chosen_device(settings.device, "evaluate.device")
    name = hub_name(settings.checkpoint)
    folder = checkpoint_folder(settings.checkpoint)
    checkpoint = Checkpoint.load(folder)
    load_card(folder, checkpoint)  # refuses a damaged one before the captions
    checks = find_checks(dataset.root)
    if checks is None:
        print(
            f"note: {settings.data} has no truth about its pictures to check captions against; "
            "they are scored against its captions only"
        )
    measures = Measures(dataset, settings, device)
    measures.check(splits)
    artifact = artifact_on(checkpoint, device)
    seen = {s: count_seen(folder, dataset, dataset.ids(s)) for s in splits}
    warnings = _seen_warnings(dataset, seen)
    captioned: dict[str, dict[int, GeneratedCaption]] = {}
    chosen: dict[str, SplitChecks] = {}
    for split in splits:
        look = None
        if checks:
            chosen[split] = checks.split()
            look = partial(_choose, artifact, dataset, chosen[split])
        captioned[split] = caption_split(artifact, dataset, split, settings, look)
    sections: dict[str, Section] = {}
    notes: list[str] = []
    rows: list[str] = []
    for split, captions in with_overall(captioned).items():
        checked = chosen.get(split, checks.split()) if checks else None
        generated = {i: caption.text for i, caption in captions.items()}
        measured = measures.measure(split, generated, checked)
        figures = dict(measured.figures)
        judged = None
        if checkpoint.quality:
            false = measured.false
            right = [not false[i] for i in generated] if checked else _agreeing(measured.scores)
            judged = Judged(
                [captions[i].quality or 0.0 for i in generated],
                [captions[i].confidence for i in generated],
                right,
            )
            figures |= judged.figures()
        shown = [
            dataclasses.replace(each, confidence=caption.confidence, quality=caption.quality)
            for each, caption in zip(measured.shown, captions.values(), strict=True)
        ]
        curve = judged.curve() if judged else ()
        sections[split] = Section(figures, shown, curve, measured.scores)
        notes += [note for note in measured.notes if note not in notes]
        if empty := sum(not text.strip() for text in generated.values()):
            notes.append(f"{split}: {empty} captions are empty; every score of words gives them 0.")
        for i, caption in captions.items() if split in splits else ():
            sure = {"confidence": round(caption.confidence, 4)}
            if caption.quality is not None:
                sure["quality"] = round(caption.quality, 4)
            rows.append(caption_line(split, i, caption.text, **sure, **measured.rows[i]))
    metrics = metrics_of(dataset, sections) | measures.names()
    if settings.gate_images:
        found = precision_gates(checkpoint, dataset, splits[0], settings)
        metrics["precisions"] = {name: gate.to_dict() for name, gate in found.items()}
    if checkpoint.quality:
        metrics[KEPT] = {
            split: [{n: round(v, 4) for n, v in kept._asdict().items()} for kept in section.kept]
            for split, section in sections.items()
        }
    metrics["weights_sha256"] = weights_sha256(folder)
    if all(counts is not None for counts in seen.values()):
        metrics[SEEN] = seen
    out = Path(settings.out)
    write_report(out, settings.page_images, sections, warnings + notes, rows, metrics, checks)
    for split, captions in captioned.items():
        texts = {i: caption.text for i, caption in captions.items()}
        write_results(out / f"results_{split}.json", texts)
    by_split = {split: dict(section.figures) for split, section in sections.items()}
    if name is not None:
        print(f"note: {name} is on the hub, so its model card stays as it is; the figures: {out}")
        return by_split
    keep_evaluation(folder, metrics, own)
    card = write_card(
        folder,
        checkpoint,
        dataset,
        by_split,
        checks,
        warnings,
        settings_of(sections),
    )
    print(f"card: {card}")
    return by_split


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
