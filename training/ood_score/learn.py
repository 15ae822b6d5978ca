"""An out-of-distribution score from settings to its files in the checkpoint folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from model.artifact import Artifact, GeneratedCaption
from model.checkpoint import Checkpoint, weights_sha256
from model.ood import pooled
from model.ood_file import OOD, Ood, save_ood
from model.reference_file import REFERENCE, Reference, ReferenceRow
from model.refusal import Refusal
from training.config import OodSettings
from training.data.dataset import CaptionDataset
from training.device import chosen_device
from training.evaluation.captioning import decode_pixels
from training.evaluation.on_device import artifact_on
from training.ood_score.fitting import fit

#: With fewer validation pictures than this, a p-value is coarse.
FEW = 200


def learn(settings: OodSettings) -> dict[str, Any]:
    """Learn the score and write it beside the weights.

    Args:
        settings: See `training.config.OodSettings`.

    Returns:
        Its record, as `ood.json` has it.

    Raises:
        Refusal: The data set has too few pictures, one cannot be read, or the checkpoint is
            damaged or has no encoder.
    """
    folder = Path(settings.checkpoint)
    device = chosen_device(settings.device, "ood.device")
    checkpoint = Checkpoint.load(folder, learned=("quality",))
    if checkpoint.captioner.clip is None:
        raise Refusal(f"{folder} has no CLIP encoder; what a picture looks like to it is unknown")
    artifact = artifact_on(checkpoint, device)
    dataset = CaptionDataset.load(settings.data)
    training = _chosen(dataset.ids("train"), settings.pictures, settings.seed)
    validation = list(dataset.splits.get("val", ()))
    if len(training) < 3:
        raise Refusal(
            f"{settings.data} has {len(training)} training pictures; what they look like is "
            "learned from 3 or more"
        )
    if not validation:
        print(
            f"note: {settings.data} has no validation pictures, so every tenth training picture "
            "is taken in their place; pictures will seem more unusual than they are"
        )
        training, validation = [i for n, i in enumerate(training) if n % 10], training[::10]
    elif len(validation) < FEW:
        print(f"note: {len(validation)} validation pictures are few; p-values will be coarse")
    validation = _chosen(validation, settings.pictures, settings.seed)
    features, _ = encode(artifact, dataset, training, settings, "training pictures")
    usual, captions = encode(
        artifact, dataset, validation, settings, "validation pictures", settings.reference
    )
    score = fit(features, usual, settings.groups, settings.seed)
    record = {
        "training_pictures": len(training),
        "validation_pictures": len(validation),
        "groups": len(score.centres),
        "usual_score": round(float(score.validation.median()), 4),
        "seed": settings.seed,
        "data": dataset.description,
    }
    digest = weights_sha256(folder)
    save_ood(folder, Ood(score, record), digest)
    scores, p_values = score(usual)
    rows = [
        ReferenceRow(each.text, each.confidence, each.quality, distance, p_value, feature)
        for each, distance, p_value, feature in zip(
            captions, scores.tolist(), p_values.tolist(), usual, strict=False
        )
    ]
    Reference(digest, dataset.description, rows).save(folder)
    print(
        f"{folder / OOD}: {record['groups']} groups of {len(training):,} training pictures, "
        f"calibrated on {len(validation):,} validation pictures; {REFERENCE} has the captions of "
        f"{len(rows):,} of them"
    )
    return record


def encode(
    artifact: Artifact,
    dataset: CaptionDataset,
    ids: Sequence[int],
    settings: OodSettings,
    what: str = "pictures",
    captioned: int = 0,
) -> tuple[Tensor, list[GeneratedCaption]]:
    """Features of pictures, and captions of some.

    Args:
        artifact: The captioner.
        dataset: Has the pictures.
        ids: Which of them.
        settings: See `training.config.OodSettings`.
        what: Name of the pictures, for the progress bar.
        captioned: Of the first so many at least the captions are returned too.

    Returns:
        Features [N, D], the mean of an image's patches where it has patches, and the best captions
        by the captioner's own defaults.

    Raises:
        Refusal: A picture cannot be read.
    """
    files = [dataset.files[i] for i in ids]
    decoded = decode_pixels(artifact.preprocessing, files, settings)
    found: list[Tensor] = []
    captions: list[GeneratedCaption] = []
    waiting: list[Tensor] = []
    bar = track(decoded, f"encoding {what}", len(ids), console=Console(stderr=True))
    for number, pixels in enumerate(bar, start=1):
        if isinstance(pixels, str):
            raise Refusal(f"{pixels}; mend the data set")
        waiting.append(pixels)
        if len(waiting) == settings.batch_size or number == len(ids):
            features = artifact.encode(torch.stack(waiting))
            found.append(pooled(features))
            if len(captions) < captioned:
                best = artifact.caption(features, artifact.defaults)
                captions += [each[0] for each in best]
            waiting.clear()
    return torch.cat(found), captions[:captioned]


def _chosen(ids: Sequence[int], count: int, seed: int) -> list[int]:
    """At most so many of these ids, in their order; which of them is by chance."""
    if len(ids) <= count:
        return list(ids)
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(ids), generator=generator)[:count].sort().values
    return [ids[i] for i in chosen.tolist()]
