"""The out-of-distribution score beside the weights of a checkpoint: `ood.safetensors`, `ood.json`.

It is learned after the captioner (`training.ood`); see `model.learned_file`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from model.learned_file import LearnedFile
from model.ood import OodScore
from model.refusal import Refusal

OOD = "ood.safetensors"
OOD_RECORD = "ood.json"
_FILE = LearnedFile(
    OOD, OOD_RECORD, "learn it again with python -m training.ood, or remove the file"
)


@dataclasses.dataclass
class Ood:
    """The out-of-distribution score of a captioner's encoder.

    Attributes:
        score: The score.
        record: By name, what it was learned from.
    """

    score: OodScore
    record: dict[str, Any]


def save_ood(folder: Path, ood: Ood, weights_sha256: str) -> None:
    """Write the two files into a checkpoint folder, in place of older ones.

    Args:
        folder: The checkpoint folder.
        ood: What to write.
        weights_sha256: Digest of the folder's weights, which it was learned for.
    """
    _FILE.save(folder, ood.score.state_dict(), ood.record, weights_sha256)


def load_ood(folder: Path, width: int, weights_sha256: str) -> Ood:
    """The score of a checkpoint folder that has one.

    Args:
        folder: The checkpoint folder.
        width: D of its features.
        weights_sha256: Digest of the folder's weights.

    Raises:
        Refusal: A file is missing or damaged, or they are those of other weights.
    """
    tensors, record = _FILE.load(folder, weights_sha256)
    groups, validation = (
        len(tensors[name]) if name in tensors and tensors[name].dim() else 0
        for name in ("centres", "validation")
    )
    score = OodScore(width, groups, validation)
    found = {name: value.shape for name, value in tensors.items()}
    expected = {name: value.shape for name, value in score.state_dict().items()}
    if found != expected or not groups or not validation:
        wrong = sorted(n for n in found | expected if found.get(n) != expected.get(n))
        raise Refusal(
            f"{folder / OOD} does not fit features of width {width}: {wrong[:3]}; {_FILE.advice}"
        )
    score.load_state_dict(tensors)
    return Ood(score.eval(), record)
