"""The quality head beside the weights of a checkpoint: `quality.safetensors` and `quality.json`.

The head is learned after the captioner (`training.quality`); see `model.learned_file`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from model.learned_file import LearnedFile
from model.network.quality import QualityHead
from model.refusal import Refusal

HEAD = "quality.safetensors"
RECORD = "quality.json"
_FILE = LearnedFile(
    HEAD, RECORD, "learn the head again with python -m training.quality, or remove the file"
)


@dataclasses.dataclass
class Quality:
    """A quality head, in evaluation mode.

    Attributes:
        head: The head.
        record: By name, what it was learned from, and how well it did on captions held out.
    """

    head: QualityHead
    record: dict[str, Any]


def save_quality(folder: Path, quality: Quality, weights_sha256: str) -> None:
    """Write the two files into a checkpoint folder, in place of older ones.

    Args:
        folder: The checkpoint folder.
        quality: What to write.
        weights_sha256: Digest of the folder's weights, which the head was learned for.
    """
    _FILE.save(folder, quality.head.state_dict(), quality.record, weights_sha256)


def load_quality(folder: Path, width: int, weights_sha256: str) -> Quality:
    """The head of a checkpoint folder that has one.

    Args:
        folder: The checkpoint folder.
        width: E of its GPT-2.
        weights_sha256: Digest of the folder's weights.

    Raises:
        Refusal: A file is missing or damaged, or they are those of other weights.
    """
    tensors, record = _FILE.load(folder, weights_sha256)
    inner = len(tensors["out.weight"].flatten()) if "out.weight" in tensors else 0
    head = QualityHead(width, inner) if inner else None
    found = {name: value.shape for name, value in tensors.items()}
    expected = {n: v.shape for n, v in head.state_dict().items()} if head else {}
    if head is None or found != expected:
        wrong = sorted(n for n in found | expected if found.get(n) != expected.get(n))
        raise Refusal(
            f"{folder / HEAD} does not fit a GPT-2 of width {width}: {wrong[:3]}; {_FILE.advice}"
        )
    head.load_state_dict(tensors)
    return Quality(head.eval(), record)
