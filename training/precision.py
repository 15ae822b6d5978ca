"""The precision that a model is trained in, by what the processor or GPU multiplies itself."""

from __future__ import annotations

import torch

from model.layers.precision import multiplies_bf16


def device_type(accelerator: str) -> str:
    """What Lightning's `accelerator` means on this machine: `cpu`, `cuda` or `mps`.

    Args:
        accelerator: As Lightning's Trainer takes it; `auto` is a GPU where there is one.
    """
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "cuda"
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return "mps"
    return "cpu"


def training_precision(wanted: str, accelerator: str = "cpu") -> str:
    """The precision to give to Lightning's Trainer.

    Args:
        wanted: One of its precisions, or `auto`: `bf16-mixed` where the processor or the GPU
            multiplies bfloat16 itself, else `32-true`. Elsewhere bfloat16 is converted to float32
            for every product, which takes several times as long.
        accelerator: As Lightning's Trainer takes it.
    """
    if wanted != "auto":
        return wanted
    device = device_type(accelerator)
    if device == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = device == "cpu" and multiplies_bf16()
    return "bf16-mixed" if native else "32-true"
