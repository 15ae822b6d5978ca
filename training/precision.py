"""What this processor computes in: does it multiply bfloat16, and the precision of training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def multiplies_bf16() -> bool:
    """Whether this processor has instructions that multiply bfloat16.

    oneDNN supports bf16 on every processor with AVX-512, but converts it to float32 where these
    instructions are missing, and is slow there. Below AVX-512 it is slower still.
    """
    features: Mapping[str, Any] = torch.cpu.get_capabilities()
    return bool(features.get("avx512_bf16") or features.get("amx_bf16"))


def training_precision(wanted: str, device: str = "cpu") -> str:
    """The precision to give to Lightning's Trainer.

    Args:
        wanted: One of its precisions, or `auto`: `bf16-mixed` where the device multiplies bfloat16,
            else `32-true`.
        device: `cpu` or `cuda`.
    """
    if wanted != "auto":
        return wanted
    fast = torch.cuda.is_bf16_supported(False) if device == "cuda" else multiplies_bf16()
    return "bf16-mixed" if fast else "32-true"
