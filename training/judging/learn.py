"""A quality head from settings to its files in the checkpoint; `training.quality` runs it."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from model.checkpoint import Checkpoint, weights_sha256
from model.pretrained.checkpoint_name import hub_name
from model.quality_file import HEAD, RECORD, Quality, save_quality
from model.refusal import Refusal
from training.config import Config
from training.config import Quality as Settings
from training.data.dataset import CaptionDataset
from training.device import chosen_device
from training.evaluation.on_device import artifact_on
from training.evaluation.scores.checks import find_checks
from training.judging.examples import Examples, write_examples
from training.judging.learning import calibrated, figures, learn_head, split_pictures
from training.judging.targets import ByReferences, ByTruth
from training.sources.scenes import prepare as draw_scenes

#: Fewest pictures: some are learned, others calibrate, and others measure.
LEAST = 3
#: With fewer pictures than this, the head can hardly learn what is right.
FEW = 200


def learn(config: Config) -> dict[str, Any]:
    """Learn a quality head and write it beside the weights.

    Args:
        config: The blocks `quality` and `scenes` are read.

    Returns:
        The head's record, as `quality.json` has it.

    Raises:
        Refusal: The data set has too few pictures in the split, one cannot be read, or the
            checkpoint is damaged.
    """
    settings = config.quality
    folder = Path(settings.checkpoint)
    if (name := hub_name(folder)) is not None:
        raise Refusal(
            f"{name} is no folder here; a quality head is written into the checkpoint, so give a "
            "folder (docs/hub.md says how to get one from the hub)"
        )
    device = chosen_device(settings.device, "quality.device")
    checkpoint = Checkpoint.load(folder, learned=())
    artifact = artifact_on(checkpoint, device)
    with _pictures(config) as dataset:
        split = settings.split
        if (count := len(dataset.splits.get(split, ()))) < LEAST:
            print(
                f"note: {settings.data} has {count} pictures in split {split}, so those of train "
                "are taken; the captioner knows them, and quality will be too high"
            )
            split = "train"
        ids = dataset.ids(split)[: settings.pictures]
        if len(ids) < LEAST:
            raise Refusal(
                f"{settings.data} has {len(ids)} pictures in split {split}; a quality head is "
                f"learned from {LEAST} or more: name another split, quality.split=NAME"
            )
        if len(ids) < FEW:
            print(f"note: {len(ids)} pictures are few to learn from; {RECORD} has what came of it")
        checks = find_checks(dataset.root)
        targets = ByTruth(checks) if checks else ByReferences(dataset, ids)
        examples = write_examples(checkpoint, artifact, dataset, ids, targets, settings)
    quality = fit(examples, settings)
    quality.record.update(data=dataset.description, split=split, target=targets.kind)
    save_quality(folder, quality, weights_sha256(folder))
    _report(folder, quality.record)
    return quality.record


def fit(examples: Examples, settings: Settings) -> Quality:
    """A calibrated head, and its figures on pictures that had no part in it.

    Args:
        examples: Captions of at least three pictures.
        settings: See `training.config.Quality`.
    """
    parts = split_pictures(examples, settings.held_out, settings.seed)
    best = [rows[examples.best[rows]] for rows in parts]
    head = calibrated(learn_head(examples, parts, settings), examples, best[1])
    record = {
        "pictures": int(examples.picture.max()) + 1,
        "captions": len(examples.lengths),
        "learned_from": len(parts.learned),
        "held_out": figures(head, examples, best[2]),
        "held_out_all_captions": figures(head, examples, parts.measured),
        "seed": settings.seed,
    }
    return Quality(head, record)


@contextmanager
def _pictures(config: Config) -> Iterator[CaptionDataset]:
    """The data set whose split is captioned.

    A drawn data set has few validation scenes, and any number more can be drawn. They are those
    that its seed would give, were the split larger.
    """
    settings = config.quality
    dataset = CaptionDataset.load(settings.data)
    drawn = (dataset.root / "truth.json").exists()
    count = len(dataset.splits.get(settings.split, ()))
    if not drawn or count >= settings.pictures:
        yield dataset
        return
    with tempfile.TemporaryDirectory() as work:
        own = config.scenes.fractions
        shares = dict.fromkeys(vars(own), 0.0) | {settings.split: 1.0}
        out = Path(work) / "scenes"
        print(
            f"note: {settings.data} has {count} scenes in {settings.split}; {settings.pictures} "
            "are drawn"
        )
        draw_scenes(
            dataclasses.replace(
                config.scenes,
                count=settings.pictures,
                fractions=dataclasses.replace(own, **shares),
                out=str(out),
            )
        )
        yield CaptionDataset.load(out)


def _report(folder: Path, record: dict[str, Any]) -> None:
    """Print what was learned."""
    held_out = record["held_out"]
    print(
        f"{folder / HEAD}: learned from {record['learned_from']:,} captions by {record['target']}; "
        f"on the best captions of {held_out['captions']:,} other pictures AUROC "
        f"{held_out['AUROC']}, calibration error {held_out['ECE_before_calibration']} before and "
        f"{held_out['ECE']} after calibration"
    )
