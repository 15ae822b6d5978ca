"""The quality gate of a precision: how much narrower weights may change the captions.

A narrower precision is faster, but may change captions. Its greedy captions of test pictures, from
the pixels on, are compared with those in float32. A gate depends on the weights, the pictures and
the processor only, so the same evaluation twice gives the same bytes. No time is measured: it would
differ from run to run. Which of the precisions that pass is exported is decided by a rule (see
`training.exporting.precision_choice`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from model.artifact import Artifact
from model.checkpoint import Checkpoint
from model.export import eager_artifact
from model.layers.precision import ARITHMETIC, available

#: Share of the captions that must stay the same, token for token.
MIN_SAME = 0.98
#: Relative change of CIDEr, up or down, at most.
MAX_CIDER_CHANGE = 0.01


@dataclasses.dataclass(frozen=True)
class Gate:
    """Captions of some pictures in one precision, compared with those in float32.

    Attributes:
        same: Share of the captions that are the same, token for token.
        cider: CIDEr of the captions in this precision.
        cider_change: That CIDEr relative to the one in float32, less 1.
    """

    same: float
    cider: float
    cider_change: float

    @property
    def passes(self) -> bool:
        """Whether this precision may be served."""
        return self.same >= MIN_SAME and abs(self.cider_change) <= MAX_CIDER_CHANGE

    def to_dict(self) -> dict[str, float | bool]:
        """Fields of `metrics.json`, with the version of the arithmetic that was measured."""
        rounded = {k: round(v, 5) for k, v in dataclasses.asdict(self).items()}
        return {**rounded, "passes": self.passes, "arithmetic": ARITHMETIC}


def valid_gates(evaluation: Mapping[str, Any] | None) -> dict[str, Mapping[str, Any]]:
    """Precision -> its gate as `to_dict` returned it, of the present version of the arithmetic.

    Args:
        evaluation: The evaluation of a checkpoint as `read_evaluation` returned it, or None.
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
    """Caption the same pictures in every precision that this processor supports.

    Args:
        checkpoint: The captioner.
        pixels: Image id -> [3, S, S].
        references: Image id -> captions of the data set.
        batch_size: Pictures at a time.

    Returns:
        Precision -> its gate; `fp32` first, which passes with no change.
    """
    # Here, since exporting reads the gates of this module too, and serving installs no scorer.
    from training.evaluation.scores.scoring import cider

    ids = list(pixels)
    known = {i: references[i] for i in ids}
    found: dict[str, Gate] = {}
    first: list[list[int]] = []
    for precision in available():
        artifact = eager_artifact(checkpoint, precision)
        tokens: list[list[int]] = []
        for start in range(0, len(ids), batch_size):
            batch = torch.stack([pixels[i] for i in ids[start : start + batch_size]])
            tokens += _greedy(artifact, artifact.encode(batch))
        first = first or tokens
        score = cider({i: artifact.text(line) for i, line in zip(ids, tokens, strict=True)}, known)
        same = sum(a == b for a, b in zip(tokens, first, strict=True)) / len(ids)
        exact = found["fp32"].cider if found else score
        change = score / exact - 1 if exact else 0.0
        found[precision] = Gate(same, score, change)
    return found


def lines(found: Mapping[str, Gate], pictures: int) -> list[str]:
    """The gates as lines to print."""
    return [
        f"precision {name}: {gate.same:.1%} of {pictures} greedy captions as in fp32 (at least "
        f"{MIN_SAME:.0%}), CIDEr {gate.cider:.3f}, {gate.cider_change:+.2%} (at most "
        f"{MAX_CIDER_CHANGE:.0%}): "
        f"{'passes' if gate.passes else 'does not pass'}"
        for name, gate in found.items()
    ]


def _greedy(artifact: Artifact, features: Tensor) -> list[list[int]]:
    return artifact.tokens(
        features, dataclasses.replace(artifact.defaults, num_beams=1, num_captions=1)
    )
