"""The quality head beside the weights of a checkpoint: `quality.safetensors` and `quality.json`.

The head is learned after the captioner (`training.quality`), so it has files of its own, and the
captioner's weights keep their digest. The file of the head names that digest: of other weights the
head would say nothing.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from model.network.quality import QualityHead
from model.refusal import Refusal

HEAD = "quality.safetensors"
RECORD = "quality.json"
_ADVICE = "learn the head again with python -m training.quality, or remove the file"


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
    tensors = {name: value.contiguous() for name, value in quality.head.state_dict().items()}
    aside = folder / f"{HEAD}.partial"
    # One entry only: safetensors writes several in an order that changes from run to run.
    save_file(tensors, aside, metadata={"weights_sha256": weights_sha256})
    aside.replace(folder / HEAD)
    aside = folder / f"{RECORD}.partial"
    aside.write_text(json.dumps(quality.record, indent=2) + "\n")
    aside.replace(folder / RECORD)


def load_quality(folder: Path, width: int, weights_sha256: str) -> Quality:
    """The head of a checkpoint folder that has one.

    Args:
        folder: The checkpoint folder.
        width: E of its GPT-2.
        weights_sha256: Digest of the folder's weights.

    Raises:
        Refusal: A file is missing or damaged, or they are those of other weights.
    """
    file, record = folder / HEAD, folder / RECORD
    try:
        with safe_open(file, "pt") as opened:
            learned_for = (opened.metadata() or {}).get("weights_sha256", "")
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise Refusal(f"{file} is damaged: {error}; {_ADVICE}") from None
    if learned_for != weights_sha256:
        raise Refusal(
            f"{file} was learned for weights with SHA-256 {learned_for[:12] or 'unknown'}…, those "
            f"here have {weights_sha256[:12]}…; {_ADVICE}"
        )
    inner = len(tensors["out.weight"].flatten()) if "out.weight" in tensors else 0
    head = QualityHead(width, inner) if inner else None
    found = {name: value.shape for name, value in tensors.items()}
    expected = {n: v.shape for n, v in head.state_dict().items()} if head else {}
    if head is None or found != expected:
        wrong = sorted(n for n in found | expected if found.get(n) != expected.get(n))
        raise Refusal(f"{file} does not fit a GPT-2 of width {width}: {wrong[:3]}; {_ADVICE}")
    head.load_state_dict(tensors)
    try:
        fields = json.loads(record.read_text())
    except (FileNotFoundError, ValueError) as error:
        raise Refusal(f"{record} cannot be read: {error}; {_ADVICE}") from None
    return Quality(head.eval(), fields)
