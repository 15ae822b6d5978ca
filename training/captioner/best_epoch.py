"""Keeps the checkpoint of the best epoch; between epochs that are equal the loss decides."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor


class BestEpoch(ModelCheckpoint):
    """Lightning's callback for one best epoch, with the validation loss as the second criterion.

    Validation CIDEr is 0 in the first epochs of a hard task, and often equal on few pictures.
    Lightning keeps the first of equal epochs, which has usually learned the least.
    """

    best_loss = float("inf")

    def check_monitor_top_k(self, trainer: pl.Trainer, current: Tensor | None = None) -> bool:
        """Whether this epoch is better than all before it."""
        if current is None:  # no validation since the last call
            return False
        loss = float(trainer.callback_metrics["val_loss"])
        better = super().check_monitor_top_k(trainer, current)
        if not better:
            equal = current == self.best_model_score
            # All devices must decide the same.
            better = trainer.strategy.reduce_boolean_decision(bool(equal) and loss < self.best_loss)
        if better:
            self.best_loss = loss
        return better

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know."""
        return {**super().state_dict(), "best_loss": self.best_loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from `state_dict`; a run of an older version has no `best_loss`."""
        super().load_state_dict(state_dict)
        self.best_loss = state_dict.get("best_loss", self.best_loss)
