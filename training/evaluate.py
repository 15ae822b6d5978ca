"""Evaluate a captioner on pictures nobody trained on.

`python -m training.evaluate [--data DIR] [--checkpoint DIR] [--out DIR]` captions the test splits
of a data set as a server would, and writes

    metrics.json      every score and scene accuracy, by split
    captions.html     sampled pictures with their captions and references, worst and best first
    captions.jsonl    every caption with its confidence and CIDEr
    scores.png        the main figures as a picture

and the figures, with the limits they show, into the checkpoint's model card (README.md). The export
finds them in the checkpoint's evaluation.json: metrics.json of its last evaluation, with the gates
of the precisions from an older one if that left them out (`evaluate.gate_images=0`).

Another data set than the configured one is reported next to it, in DIR/report.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from model.artifact import Artifact, GeneratedCaption
from model.checkpoint import EVALUATION, Checkpoint, read_evaluation, weights_sha256
from model.export import eager_artifact
from model.image.preprocessing import Preprocessing, to_pixels
from model.refusal import Refusal
from training.command import arguments, command
from training.config import Evaluate, load_config
from training.data.dataset import CaptionDataset
from training.data.image_decoding import decode_files
from training.data.tar_picture import PictureFile
from training.evaluation.model_card import load_card, write_card
from training.evaluation.precision_gate import Gate, gates, lines
from training.evaluation.report import Section, Shown, draw_chart, figures_table, write_page
from training.evaluation.scoring import score
from training.scenes.language.accuracy import SceneAccuracy
from training.scenes.world.scene import Scene


def evaluate(settings: Evaluate) -> dict[str, dict[str, float]]:
    """Caption, score and report.

    Returns:
        Split name -> its figures.

    Raises:
        Refusal: The data set has none of the splits, a picture cannot be read, or the model card
            that is there cannot.
    """
    if settings.batch_size < 1:
        raise Refusal(f"evaluate.batch_size is {settings.batch_size}; it must be at least 1")
    dataset = CaptionDataset.load(settings.data)
    splits = [split for split in settings.splits if dataset.splits.get(split)]
    if not splits:
        raise Refusal(
            f"{settings.data} has none of the splits {', '.join(settings.splits)}; it has "
            f"{', '.join(dataset.splits)}; name them: evaluate.splits=[...]"
        )
    checkpoint = Checkpoint.load(settings.checkpoint)
    load_card(Path(settings.checkpoint), checkpoint)  # now, rather than after all captions
    artifact = eager_artifact(checkpoint)
    truth = _truth(dataset)
    sections: dict[str, Section] = {}
    notes: list[str] = []
    rows: list[str] = []
    for split in splits:
        captions = caption_split(artifact, dataset, split, settings)
        generated = {image_id: caption.text for image_id, caption in captions.items()}
        references = {image_id: dataset.captions[image_id] for image_id in generated}
        scores = score(generated, references)
        figures = dict(scores.figures)
        wrong: dict[int, Any] = {}
        if truth:
            accuracy = SceneAccuracy()
            wrong = {i: accuracy.add(text, truth[i]) for i, text in generated.items()}
            figures |= accuracy.figures()
        shown = [
            Shown(
                file=dataset.files[i],
                caption=generated[i],
                references=references[i],
                cider=scores.cider[i],
                false=wrong.get(i, ()),
                confidence=captions[i].confidence,
            )
            for i in generated
        ]
        sections[split] = Section(figures, shown)
        notes += [note for note in scores.notes if note not in notes]
        for i, caption in captions.items():
            line = {
                "split": split,
                "image_id": i,
                "caption": caption.text,
                "confidence": round(caption.confidence, 4),
                "CIDEr": round(scores.cider[i], 4),
            }
            rows.append(json.dumps(line))
    extra: dict[str, Any] = {}
    if settings.gate_images:
        found = precision_gates(checkpoint, dataset, splits[0], settings)
        extra = {"precisions": {name: gate.to_dict() for name, gate in found.items()}}
    _write(settings, sections, notes, rows, extra)
    figures_by_split = {split: dict(section.figures) for split, section in sections.items()}
    print(f"card: {write_card(Path(settings.checkpoint), checkpoint, dataset, figures_by_split)}")
    return figures_by_split


def caption_split(
    artifact: Artifact, dataset: CaptionDataset, split: str, settings: Evaluate
) -> dict[int, GeneratedCaption]:
    """The best caption of every picture of a split, by the captioner's own defaults."""
    ids = dataset.ids(split)
    files = [dataset.files[i] for i in ids]
    decoded = _pixels(artifact.preprocessing, files, settings)
    captions: dict[int, GeneratedCaption] = {}
    waiting: list[tuple[int, torch.Tensor]] = []

    def flush() -> None:
        features = artifact.encode(torch.stack([pixels for _, pixels in waiting]))
        best = [found[0] for found in artifact.caption(features, artifact.defaults)]
        captions.update(zip((i for i, _ in waiting), best, strict=True))
        waiting.clear()

    bar = track(decoded, f"captioning {split}", len(ids), console=Console(stderr=True))
    for image_id, pixels in zip(ids, bar, strict=True):
        if isinstance(pixels, str):
            raise Refusal(f"{pixels}; mend the data set, a score of part of it would mislead")
        waiting.append((image_id, pixels))
        if len(waiting) == settings.batch_size:
            flush()
    if waiting:
        flush()
    return captions


def precision_gates(
    checkpoint: Checkpoint, dataset: CaptionDataset, split: str, settings: Evaluate
) -> dict[str, Gate]:
    """What each precision changes of the captions of a split's first pictures; printed too."""
    ids = dataset.ids(split)[: settings.gate_images]
    files = [dataset.files[i] for i in ids]
    decoded = _pixels(checkpoint.captioner.config.preprocessing, files, settings)
    pixels = dict(zip(ids, (p for p in decoded if not isinstance(p, str)), strict=True))
    references = {i: dataset.captions[i] for i in ids}
    found = gates(checkpoint, pixels, references, settings.batch_size)
    for line in lines(found, len(ids)):
        print(line)
    return found


def _pixels(
    preprocessing: Preprocessing, files: Sequence[PictureFile], settings: Evaluate
) -> Iterator[torch.Tensor | str]:
    """Pixels [3, S, S] of each file, or why it cannot be read."""
    convert = partial(to_pixels, preprocessing=preprocessing)
    workers, side = settings.workers, preprocessing.size
    return decode_files(files, convert, settings.max_pixels, workers, side)


def _truth(dataset: CaptionDataset) -> dict[int, Scene]:
    """Ground truth of scenes; empty for other data sets."""
    file = dataset.root / "truth.json"
    if not file.exists():
        return {}
    return {int(i): Scene.from_dict(scene) for i, scene in json.loads(file.read_text()).items()}


def _write(
    settings: Evaluate,
    sections: dict[str, Section],
    notes: list[str],
    rows: list[str],
    extra: dict[str, Any],
) -> None:
    """Everything that is looked at later."""
    out = Path(settings.out)
    out.mkdir(parents=True, exist_ok=True)
    figures = {split: dict(section.figures) for split, section in sections.items()}
    rounded = {
        split: {name: round(value, 4) for name, value in own.items()}
        for split, own in figures.items()
    }
    identity = {"weights_sha256": weights_sha256(settings.checkpoint)}
    metrics = {**rounded, **extra, **identity}
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    keep_evaluation(Path(settings.checkpoint), metrics)
    (out / "captions.jsonl").write_text("\n".join(rows) + "\n")
    write_page(out / "captions.html", "Captions", sections, notes, settings.page_images)
    draw_chart(out / "scores.png", figures)
    console = Console()
    console.print(figures_table(figures))
    for note in notes:
        console.print(f"note: {note}", highlight=False)
    print(f"page: {out / 'captions.html'}")


def keep_evaluation(checkpoint: Path, metrics: dict[str, Any]) -> None:
    """Put the figures beside the weights; gates that were measured before stay, if left out now."""
    file = checkpoint / EVALUATION
    if "precisions" not in metrics and (before := read_evaluation(checkpoint)):
        metrics = {**metrics, **{k: v for k, v in before.items() if k == "precisions"}}
    aside = file.with_name(f"{EVALUATION}.partial")
    aside.write_text(json.dumps(metrics, indent=2) + "\n")
    aside.replace(file)


def main() -> None:
    """Evaluate with the settings of the command line."""
    parser = arguments(__doc__)
    parser.add_argument("--data", help="evaluate.data: another caption data set")
    parser.add_argument("--checkpoint", help="evaluate.checkpoint: checkpoint folder")
    parser.add_argument("--out", help="evaluate.out: folder of the report")
    options = parser.parse_args()
    settings = load_config(options.overrides).evaluate
    given = {name: getattr(options, name) for name in ("data", "checkpoint", "out")}
    if options.data and not options.out:
        given["out"] = str(Path(options.data) / "report")
    settings = dataclasses.replace(settings, **{k: v for k, v in given.items() if v is not None})
    evaluate(settings)


if __name__ == "__main__":
    command(main)
