"""Interrupted runs: their last checkpoint, the settings in it, the check before one is resumed.

A resumed run must go on with the settings that it was started with. Lightning restores the weights,
the optimiser and the learning rate's schedule from the checkpoint, but it takes everything else
from the present settings. So a run with other settings would be neither of the two runs, and the
record of its training would be false.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pickle
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.types import STEP_OUTPUT
from torch import nn

from model.refusal import Refusal

#: Where a checkpoint holds the settings of its run.
_SETTINGS = "settings"
#: The checkpoint that a run is resumed from.
LAST = "last.ckpt"
#: An empty file beside the checkpoints of a run that ended, and whose model is saved.
FINISHED = "finished"
# Errors of torch.load for files that are damaged or were not written by torch.save; OSError is that
# of mapping an empty file into memory.
_DAMAGED = (
    EOFError,
    KeyError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
)


class RecordSettings(pl.Callback):
    """Puts the settings of a run into its checkpoints, for `check_resumable`.

    Args:
        settings: As from `run_settings`.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = dict(settings)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the settings to a checkpoint that is written."""
        checkpoint[_SETTINGS] = self.settings


class KeepLast(Checkpoint):
    """Writes the checkpoint that a run is resumed from: every so many steps, and after every epoch.

    A run that is killed while it writes keeps the checkpoint before that. None is written between
    the last batch of an epoch and its validation, nor before a validation in the middle of one:
    Lightning would resume behind a validation that never was.

    Args:
        file: The checkpoint.
        every: Optimiser steps between two checkpoints; 0 writes them after epochs only.
    """

    def __init__(self, file: Path, every: int) -> None:
        self.file = file
        self.every = every
        self._saved = 0  # optimiser steps at the last checkpoint
        self._steps = 0  # and at the last batch
        self._logged = True

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Count from the checkpoint that is resumed."""
        self._saved = self._steps = trainer.global_step

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Write the logs up to the checkpoint; Lightning adds its step to them only after it."""
        if not self._logged:
            for logger in trainer.loggers:
                logger.save()
            self._logged = True

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Write a checkpoint if it is time."""
        stepped = trainer.global_step != self._steps  # else gradients of this batch are kept
        self._steps = trainer.global_step
        due = self.every and self._steps - self._saved >= self.every
        between = trainer.val_check_batch
        validated = isinstance(between, int) and (batch_idx + 1) % between == 0
        if due and stepped and not trainer.is_last_batch and not validated:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Write a checkpoint; callbacks that read the validation's scores have run before."""
        self._save(trainer)

    def _save(self, trainer: pl.Trainer) -> None:
        self._saved, self._logged = trainer.global_step, False
        if getattr(trainer, "fast_dev_run", False):  # it has no type
            return
        aside = self.file.with_name(f"{self.file.name}.partial")
        trainer.save_checkpoint(aside)
        if trainer.is_global_zero:
            os.replace(aside, self.file)


def run_settings(name: str, settings: Any, data: str, free: frozenset[str]) -> dict[str, Any]:
    """The settings that a run is resumed with, by key.

    Args:
        name: Key of the settings, such as `train`.
        settings: An instance of a dataclass.
        data: Folder of the data set, for which the SHA-256 of its captions and of its split stand.
        free: Keys behind `name.` that may differ, since they do not change what is learned.
    """
    found: dict[str, Any] = {}
    for file in ("captions.json", "split.json"):
        with (Path(data) / file).open("rb") as opened:
            found[f"SHA-256 of {file}"] = hashlib.file_digest(opened, "sha256").hexdigest()
    left = [(name, dataclasses.asdict(settings))]
    while left:
        prefix, values = left.pop()
        for field, value in values.items():
            key = f"{prefix}.{field}"
            if key.removeprefix(f"{name}.") in free:
                continue
            if isinstance(value, dict):
                left.append((key, value))
            else:
                found[key] = value
    return found


def check_resumable(
    file: Path, module: nn.Module, settings: Mapping[str, Any], setting: str
) -> None:
    """Refuse to resume a run that had other settings, another model or another tuning.

    Args:
        file: Lightning's checkpoint of the run.
        module: The module that would be resumed.
        settings: The present settings, as from `run_settings`.
        setting: The setting that asks for it, for the message.

    Raises:
        Refusal: A setting, or the name or shape of a weight, differs; or the file is damaged, or
            cannot be read.
    """
    anew = f"start anew with {setting}=false"
    try:
        file.open("rb").close()
    except OSError as error:
        raise Refusal(
            f"{setting} is true but {file} cannot be read ({error.strerror}); make it readable, or "
            f"{anew}"
        ) from None
    try:
        saved = torch.load(file, weights_only=True, map_location="cpu", mmap=True)
        weights, before = saved["state_dict"], saved.get(_SETTINGS)
    except _DAMAGED as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise Refusal(f"{setting} is true but {file} is damaged ({reason}); {anew}") from None
    if before is None:
        raise Refusal(
            f"{setting} is true but {file} does not hold the settings of its run, because an older "
            f"version wrote it; {anew}"
        )
    if before != settings:
        keys = sorted(key for key in {*before, *settings} if before.get(key) != settings.get(key))
        changes = "; ".join(
            f"{key} was {_said(before, key)}, is {_said(settings, key)}" for key in keys
        )
        raise Refusal(
            f"{setting} is true but {file} is of a run with other settings: {changes}; set them as "
            f"they were, or {anew}"
        )
    found, wanted = (
        {k: v.shape for k, v in each.items()} for each in (weights, module.state_dict())
    )
    if found != wanted:
        first = min(name for name, _ in found.items() ^ wanted.items())
        raise Refusal(
            f"{setting} is true but {file} is of a run with other models (first difference: "
            f"{first}); give the models as they were, or {anew}"
        )


@rank_zero_only
def clear_for_new_run(folder: Path, setting: str) -> None:
    """Make way for a new run in the folder of an older run's checkpoints.

    The folder of a run that ended is removed. That of an interrupted run is moved aside, because
    hours of training may be in it. With several devices Lightning starts the command again for each
    when the first process begins to train; only the first clears the folder.

    Args:
        folder: The folder; it need not exist.
        setting: The setting that resumes a run, for the message.
    """
    if not (folder / LAST).exists() or (folder / FINISHED).exists():
        shutil.rmtree(folder, ignore_errors=True)
        return
    aside, number = folder.with_name(f"{folder.name}.previous"), 1
    while aside.exists():
        number += 1
        aside = folder.with_name(f"{folder.name}.previous-{number}")
    folder.rename(aside)
    print(
        f"note: {folder} held an interrupted run, which {setting}=true would have continued; it "
        f"was moved to {aside}. To continue it, move it back; if you do not need it, remove it",
        file=sys.stderr,
    )


def mark_finished(folder: Path) -> None:
    """Mark the run in this folder as ended, so that the next one may replace it."""
    (folder / FINISHED).touch()


def _said(settings: Mapping[str, Any], key: str) -> str:
    return str(settings[key]) if key in settings else "not set"
