"""Lightning's trainer of the captioner: its callbacks, and by what the best epoch is chosen."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
from pytorch_lightning.callbacks import RichProgressBar

from training.captioner.averaging import WeightAverage
from training.captioner.run.best_epoch import BestEpoch
from training.captioner.run.resuming import LAST, KeepLast, RecordSettings, clear_for_new_run
from training.config import Train
from training.loggers.recorder import RunRecorder


def monitored(val_images: int) -> tuple[str, str]:
    """The value that decides which epoch is the best, and whether it is `min` or `max`.

    CIDEr weighs a word by how few images have it, so that of a single image it is always 0.
    """
    if val_images > 1:
        return "val_CIDEr", "max"
    print(
        "note: with one validation picture CIDEr is always 0; the epoch with the least validation "
        "loss is kept",
        file=sys.stderr,
    )
    return "val_loss", "min"


def make_trainer(
    settings: Train,
    monitor: tuple[str, str],
    recorded: dict[str, Any],
    recorder: RunRecorder,
    more: Sequence[pl.Callback],
) -> tuple[pl.Trainer, BestEpoch]:
    """Lightning's trainer, and the callback that keeps the best epoch.

    Args:
        settings: See `training.config.Train`.
        monitor: As from `monitored`.
        recorded: The settings that are put into the checkpoints, with the precision to train in.
        recorder: Gives the loggers.
        more: More callbacks.
    """
    work = Path(settings.work)
    if not settings.resume:
        clear_for_new_run(work, "train.resume")
    name, mode = monitor
    best = BestEpoch(
        work,
        "best",
        monitor=name,
        mode=mode,
        enable_version_counter=False,
        patience=settings.patience,
    )
    callbacks = [RecordSettings(recorded), recorder, *more, best]
    callbacks.append(KeepLast(work / LAST, settings.checkpoint_every))
    if settings.trainer.get("enable_progress_bar", True):
        callbacks.insert(0, RichProgressBar())
    if settings.ema:
        callbacks.insert(0, WeightAverage(settings.ema))
    # Lightning recommends data workers; these batches are slices of an array and need none.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
    # It is resumable in the middle of an epoch: see `CaptionDataModule`.
    warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    options: dict[str, Any] = {"log_every_n_steps": 10, "num_sanity_val_steps": 0}
    options |= {"enable_model_summary": False, **settings.trainer}
    if settings.clip.tuning != "frozen" and options.get("strategy") == "ddp":
        # Not all of CLIP is part of the loss: patches are read before its last layers.
        options["strategy"] = "ddp_find_unused_parameters_true"
    trainer = pl.Trainer(
        **options,
        precision=cast(Any, recorded["train.precision"]),
        max_epochs=settings.epochs,
        use_distributed_sampler=False,  # `training.captioner.batches` splits the batches
        logger=recorder.loggers(work, work / "log" / "run.json", settings.resume),
        callbacks=callbacks,
    )
    return trainer, best
