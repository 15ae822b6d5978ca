"""The optimiser and schedule of both trainings: AdamW, warm-up over a share of the steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import nn
from transformers import get_scheduler


class Rates(Protocol):
    """The settings that decide how fast is learned."""

    learning_rate: float
    weight_decay: float
    warmup_ratio: float


def adamw(
    module: nn.Module,
    rates: Rates,
    steps: int,
    schedule: str,
    parts: Sequence[tuple[nn.Module, float]] = (),
) -> dict[str, Any]:
    """What Lightning wants of `configure_optimizers`.

    Args:
        module: Its parameters that want gradients are learned; vectors without weight decay.
        rates: Learning rate at its peak, weight decay, and the share of steps that warm up.
        steps: Optimiser steps in all.
        schedule: What follows the warm-up, by Hugging Face's names: `linear`, `cosine`.
        parts: Parts of the module with peak learning rates of their own.
    """
    left = {p for p in module.parameters() if p.requires_grad}
    groups: list[dict[str, Any]] = []
    for part, rate in (*parts, (module, rates.learning_rate)):
        learned = [p for p in part.parameters() if p in left]
        left.difference_update(learned)
        matrices = [p for p in learned if p.ndim > 1]
        vectors = [p for p in learned if p.ndim <= 1]
        groups += [
            {"params": matrices, "lr": rate, "weight_decay": rates.weight_decay},
            {"params": vectors, "lr": rate, "weight_decay": 0.0},
        ]
    optimizer = torch.optim.AdamW(groups)
    scheduler = get_scheduler(schedule, optimizer, int(steps * rates.warmup_ratio), steps)
    return {
        "optimizer": optimizer,
        "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
    }
