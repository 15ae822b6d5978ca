"""The optimiser and schedule of both trainings: AdamW, warm-up over a share of the steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import nn
from transformers import get_scheduler


class Rates(Protocol):
    """Settings of the optimiser and its schedule, as `Train` and `Clip` have them."""

    learning_rate: float
    weight_decay: float
    schedule: str
    warmup_ratio: float


#: Names of the schedules in the settings, and Hugging Face's for them.
_SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


def adamw(
    module: nn.Module,
    rates: Rates,
    steps: int,
    parts: Sequence[tuple[nn.Module, float]] = (),
) -> OptimizerLRScheduler:
    """Optimiser and schedule as Lightning's `configure_optimizers` returns them.

    Args:
        module: Its parameters that require gradients are trained; vectors without weight decay.
        rates: Peak learning rate, weight decay, the schedule after the warm-up, and the share of
            the steps that are warm-up.
        steps: Optimiser steps of the whole training.
        parts: Parts of the module, each with a peak learning rate of its own.
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
    name = _SCHEDULES[rates.schedule]
    scheduler = get_scheduler(name, optimizer, int(steps * rates.warmup_ratio), steps)
    return {
        "optimizer": optimizer,
        "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
    }
