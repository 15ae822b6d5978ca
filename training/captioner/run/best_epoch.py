"""Keeps the checkpoint of the best epoch, and ends a training that does not get better."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor


class BestEpoch(ModelCheckpoint):
    """Lightning's callback for one best epoch, with the validation loss as the second criterion.

    Validation CIDEr is 0 in the first epochs of a hard task, and often equal on few pictures.
    Lightning keeps the first of equal epochs, which has usually learned the least. Its callback for
    early stopping would also end a training in which CIDEr is still 0 and the loss falls; so that
    is decided here too, by the same comparison.

    Args:
        patience: Validations in a row that are not better than the best, after which the training
            ends; 0 never ends it.
        options: As Lightning's callback takes them.
    """

    def __init__(self, *args: Any, patience: int = 0, **options: Any) -> None:
        super().__init__(*args, **options)
        self.patience = patience
        self.best_loss = float("inf")
        #: Epoch of the best validation, from 0; validations since then.
        self.best_epoch = 0
        self.since = 0

    @property
    def exhausted(self) -> bool:
        """Whether there were as many validations without an improvement as `patience` allows."""
        return 0 < self.patience <= self.since

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Do not train on in a run that had ended early, and whose model was not saved yet."""
        super().on_train_start(trainer, module)
        trainer.should_stop |= self.exhausted

    def check_monitor_top_k(self, trainer: pl.Trainer, current: Tensor | None = None) -> bool:
        """Whether this epoch is better than all before it; called once after a validation."""
        if current is None:  # no validation since the last call
            return False
        loss = float(trainer.callback_metrics["val_loss"])
        better = super().check_monitor_top_k(trainer, current)
        if not better:
            equal = current == self.best_model_score
            # All devices must decide the same.
            better = trainer.strategy.reduce_boolean_decision(bool(equal) and loss < self.best_loss)
        if better:
            self.best_loss, self.best_epoch, self.since = loss, trainer.current_epoch, 0
        else:
            self.since += 1
        trainer.should_stop |= self.exhausted
        return better

    def said(self, epochs: int) -> str:
        """Which epoch is kept, and why the training ended, in a line.

        Args:
            epochs: Epochs that were to be trained.
        """
        assert self.best_model_score is not None
        ended = ""
        if self.exhausted:
            ended = f"; training ended early, {self.since} validations in a row were not better"
        return (
            f"epoch {self.best_epoch + 1} of {epochs} is kept, with {self.monitor} "
            f"{float(self.best_model_score):.4f}{ended}"
        )

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know."""
        own = {"best_loss": self.best_loss, "best_epoch": self.best_epoch, "since": self.since}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from `state_dict`; a run of an older version lacks our part of it."""
        super().load_state_dict(state_dict)
        for name in ("best_loss", "best_epoch", "since"):
            setattr(self, name, state_dict.get(name, getattr(self, name)))
