"""The pictures that a captioner was trained on, so that an evaluation can tell when it meets them.

A checkpoint folder holds them in `seen_images.safetensors`: for each split that training read, the
first 63 bits of the SHA-256 of every picture file, sorted, int64 [N]. That is 8 bytes a picture,
below 1 MB for COCO. Pictures are found again under another name, and in another data set.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from model.refusal import Refusal
from training.data.dataset import CaptionDataset

#: In the checkpoint folder.
FILE = "seen_images.safetensors"


def find_seen(dataset: CaptionDataset, ids: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """What `save_seen` keeps of a data set. Pictures whose SHA-256 is not noted there are read.

    Args:
        dataset: The data set that is trained on.
        ids: Split name -> ids of the images that training reads.

    Returns:
        Split name -> sorted digests, int64 [N], without those of pictures that cannot be read; the
        number of those is printed.
    """
    seen = {}
    for split, own in ids.items():
        digests = dataset.files.digests(own)
        seen[split] = np.unique(digests[digests >= 0])
        if unread := int((digests < 0).sum()):
            print(
                f"note: {unread} of {len(own)} pictures of split {split!r} cannot be read, and "
                "captions.json has no sha256 of them; an evaluation of this captioner will not "
                "recognise them",
                file=sys.stderr,
            )
    return seen


def save_seen(folder: str | Path, seen: Mapping[str, np.ndarray]) -> None:
    """Write the pictures that were trained on into a checkpoint folder."""
    aside = Path(folder) / f"{FILE}.partial"
    save_file(dict(seen), aside)
    os.replace(aside, Path(folder) / FILE)


def count_seen(
    folder: str | Path, dataset: CaptionDataset, ids: Sequence[int]
) -> dict[str, int] | None:
    """How many of these images the captioner was trained on.

    Args:
        folder: The checkpoint folder.
        dataset: The data set of the images.
        ids: The images.

    Returns:
        Split of the training -> number of images that were in it; None if the folder has no record.

    Raises:
        Refusal: The record is damaged.
    """
    file = Path(folder) / FILE
    if not file.exists():
        return None
    try:
        seen = load_file(file)
    except (SafetensorError, OSError) as error:
        raise Refusal(f"{file} is damaged ({error}); delete it, or train again") from None
    digests = dataset.files.digests(ids)
    return {split: int(np.isin(digests, own).sum()) for split, own in seen.items()}
