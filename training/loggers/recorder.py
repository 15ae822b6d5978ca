"""The callback that records a training in all loggers that the settings name."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import yaml
from pytorch_lightning.loggers import CSVLogger, Logger
from pytorch_lightning.utilities import rank_zero_only

from training.config import Loggers
from training.loggers.provenance import provenance
from training.loggers.run import Identity, Run
from training.loggers.samples import Sample, captioned

#: Logger -> its module, imported only if it is named, and its class.
_RUNS = {
    "wandb": ("training.loggers.wandb_run", "WandbRun"),
    "tensorboard": ("training.loggers.tensorboard_run", "TensorBoardRun"),
    "mlflow": ("training.loggers.mlflow_run", "MlflowRun"),
}


class RunRecorder(pl.Callback):
    """Records a training: losses, learning rate, captions, what it was made from, checkpoint.

    With several devices the first process records alone.

    Args:
        settings: All settings as nested dictionaries.
        loggers: See `training.config.Loggers`.
        names: The loggers beside the CSV log.
        recorded: The settings that a run is resumed with (`training.captioner.run.resuming`).
        samples: Pictures that are shown with their captions.

    Attributes:
        captions: Image id -> caption, of all validation pictures; the validation sets it.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        loggers: Loggers,
        names: Sequence[str],
        recorded: Mapping[str, Any],
        samples: Sequence[Sample] = (),
    ) -> None:
        self.settings = settings
        self.options = loggers
        self.names = names
        self.recorded = recorded
        self.samples = samples
        self.captions: Mapping[int, str] = {}
        self.runs: list[Run] = []

    def loggers(self, csv_folder: Path, identity_file: Path, resume: bool) -> list[Logger]:
        """Begin the run in every logger, or go on with it; returns Lightning's loggers.

        Args:
            csv_folder: Where the folder `log` of the CSV tables goes.
            identity_file: Holds the run's ids, for a run that is resumed.
            resume: Whether the run is resumed.
        """
        # A resumed run writes a CSV file of its own beside the first one.
        loggers: list[Logger] = [CSVLogger(csv_folder, name="log")]
        if getattr(rank_zero_only, "rank", 0) or not self.names:
            return loggers
        identity = Identity.of(identity_file, self.options.run, resume)
        for name in self.names:
            module, of = _RUNS[name]
            begin: Callable[..., Run] = getattr(importlib.import_module(module), of)
            self.runs.append(begin(self.options, identity))
        identity.save(identity_file)
        return [*loggers, *(run.logger for run in self.runs)]

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Record what the run is made from."""
        if not self.runs:
            return
        values = provenance(self.settings, self.recorded)
        settings = yaml.safe_dump(self.settings, sort_keys=False)
        for run in self.runs:
            run.describe(values, settings)

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, index: int
    ) -> None:
        """Log the learning rate of this step, and that of CLIP where it has one of its own."""
        first, *_, last = trainer.optimizers[0].param_groups
        module.log("learning_rate", last["lr"])
        if first.get("initial_lr") != last.get("initial_lr"):
            module.log("learning_rate_clip", first["lr"])

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Show the captions of the sampled pictures."""
        if self.samples and self.captions:
            for run in self.runs:
                run.show(captioned(self.samples, self.captions), trainer.global_step)

    def on_exception(
        self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException
    ) -> None:
        """End the run as one that failed; it can be resumed."""
        self._close(False)

    def finish(self, folder: Path) -> None:
        """End the run after the checkpoint folder is written, and say where it is found."""
        for run in self.runs:
            if self.options.checkpoint:
                run.keep(folder)
        for place in self._close(True):
            print(place, file=sys.stderr)

    def _close(self, succeeded: bool) -> list[str]:
        places = [run.close(succeeded) for run in self.runs]
        self.runs = []
        return places
