"""The quality gate of a precision: what narrower weights may change of a captioner.

A narrower precision is faster, and is worth it only where nobody notices. Its greedy captions of
test pictures are held against those in float32, from the pixels on.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from model.artifact import Artifact
from model.checkpoint import Checkpoint
from model.export import eager_artifact
from model.layers.precision import ARITHMETIC, available

#: Share of the captions that must stay the same, token for token.
SAME = 0.98
#: Relative change of CIDEr, up or down, at most.
CIDER_CHANGE = 0.01
#: Pictures that are captioned once more, each alone, for the time that takes.
ALONE = 8


@dataclasses.dataclass(frozen=True)
class Gate:
    """What one precision did to the captions of some pictures.

    Attributes:
        same: Share of the captions that are the same as in float32, token for token.
        cider: Their CIDEr.
        cider_change: That CIDEr relative to float32's, less 1.
        seconds: Time a picture took, encoding and greedy search, on this machine and run eagerly:
            the geometric mean of a picture in a batch and one alone, which narrow weights help
            most.
    """

    same: float
    cider: float
    cider_change: float
    seconds: float

    @property
    def passes(self) -> bool:
        """Whether this precision may be served."""
        return self.same >= SAME and abs(self.cider_change) <= CIDER_CHANGE

    def to_dict(self) -> dict[str, float | bool]:
        """As `metrics.json` holds it, with the number of the arithmetic that it is about."""
        rounded = {k: round(v, 5) for k, v in dataclasses.asdict(self).items()}
        return {**rounded, "passes": self.passes, "arithmetic": ARITHMETIC}


def valid_gates(evaluation: Mapping[str, Any] | None) -> dict[str, Mapping[str, Any]]:
    """Precision -> its gate as `to_dict` gave it, of those about what it computes today.

    Args:
        evaluation: What a checkpoint's evaluation found, or None.
    """
    kept: Mapping[str, Mapping[str, Any]] = (evaluation or {}).get("precisions", {})
    return {name: gate for name, gate in kept.items() if gate.get("arithmetic") == ARITHMETIC}


@torch.inference_mode()
def gates(
    checkpoint: Checkpoint,
    pixels: Mapping[int, Tensor],
    references: Mapping[int, Sequence[str]],
    batch_size: int,
) -> dict[str, Gate]:
    """Caption the same pictures in every precision that this processor has.

    Args:
        checkpoint: The captioner.
        pixels: Image id -> [3, S, S].
        references: Image id -> captions by people.
        batch_size: Pictures at a time.

    Returns:
        Precision -> what it changed; `fp32` first, which changes nothing.
    """
    # Here, since exporting reads the gates of this module too, and serving installs no scorer.
    from training.evaluation.scoring import cider

    ids = list(pixels)
    known = {i: references[i] for i in ids}
    found: dict[str, Gate] = {}
    first: list[list[int]] = []
    for precision in available():
        artifact = eager_artifact(checkpoint, precision)
        begin = time.perf_counter()
        tokens: list[list[int]] = []
        for start in range(0, len(ids), batch_size):
            batch = torch.stack([pixels[i] for i in ids[start : start + batch_size]])
            tokens += _greedy(artifact, artifact.encode(batch))
        together = (time.perf_counter() - begin) / len(ids)
        seconds = math.sqrt(together * _seconds_alone(artifact, [pixels[i] for i in ids[:ALONE]]))
        first = first or tokens
        score = cider({i: artifact.text(line) for i, line in zip(ids, tokens, strict=True)}, known)
        same = sum(a == b for a, b in zip(tokens, first, strict=True)) / len(ids)
        exact = found["fp32"].cider if found else score
        change = score / exact - 1 if exact else 0.0
        found[precision] = Gate(same, score, change, seconds)
    return found


def lines(found: Mapping[str, Gate], pictures: int) -> list[str]:
    """The gates as lines to print."""
    return [
        f"precision {name}: {gate.same:.1%} of {pictures} greedy captions as in fp32 (at least "
        f"{SAME:.0%}), CIDEr {gate.cider:.3f}, {gate.cider_change:+.2%} (at most "
        f"{CIDER_CHANGE:.0%}), {gate.seconds * 1e3:.1f} ms a picture: "
        f"{'passes' if gate.passes else 'does not pass'}"
        for name, gate in found.items()
    ]


def _seconds_alone(artifact: Artifact, pictures: Sequence[Tensor]) -> float:
    """Median time of a picture [3, S, S] by itself."""
    spent = []
    for picture in pictures:
        begin = time.perf_counter()
        _greedy(artifact, artifact.encode(picture[None]))
        spent.append(time.perf_counter() - begin)
    return statistics.median(spent)


def _greedy(artifact: Artifact, features: Tensor) -> list[list[int]]:
    return artifact.tokens(
        features, dataclasses.replace(artifact.defaults, num_beams=1, num_captions=1)
    )
