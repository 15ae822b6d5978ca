"""A training that is cut short, as by a power cut."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from torch import Tensor

from training.captioner.data import CaptionBatch
from training.captioner.module import CaptionerModule


@contextmanager
def power_cut(monkeypatch: pytest.MonkeyPatch, at: int) -> Iterator[None]:
    """The captioner's training in this block fails at a step, and must have come so far."""
    step = CaptionerModule.training_step

    def failing(module: CaptionerModule, batch: CaptionBatch, index: int) -> Tensor:
        if module.global_step == at:
            raise RuntimeError("power cut")
        return step(module, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(CaptionerModule, "training_step", failing)
        with pytest.raises(RuntimeError, match="power cut"):
            yield
