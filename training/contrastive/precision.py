"""The precision that a CLIP is trained in."""

from __future__ import annotations

from model.layers.precision import multiplies_bf16


def training_precision(wanted: str) -> str:
    """The precision to give to Lightning's Trainer.

    Args:
        wanted: One of its precisions, or `auto`: `bf16-mixed` where the processor multiplies
            bfloat16, else `32-true`.
    """
    if wanted != "auto":
        return wanted
    return "bf16-mixed" if multiplies_bf16() else "32-true"
