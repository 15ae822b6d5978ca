"""A run in Weights & Biases, which sends it to its server, or keeps it on this machine."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import wandb
from pytorch_lightning.loggers import WandbLogger

from training.config import Loggers
from training.loggers.run import Identity
from training.loggers.samples import Sample


class WandbRun:
    """See `training.loggers.run.Run`.

    With `loggers.wandb=offline` each part of a resumed run is a folder of its own with the same id,
    so the server joins them when they are sent.
    """

    def __init__(self, settings: Loggers, identity: Identity) -> None:
        folder = Path(settings.folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.run = wandb.init(
            project=settings.project,
            name=identity.name,
            id=identity.ids.setdefault("wandb", secrets.token_hex(4)),
            dir=folder,
            mode="online" if settings.wandb == "online" else "offline",
            resume="allow",
            reinit="finish_previous",  # else a second training of this process goes on with it
            settings=wandb.Settings(silent=True),
        )
        # Lightning defines these only for runs that it begins itself.
        self.run.define_metric("trainer/global_step")
        self.run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        self.logger = WandbLogger(experiment=self.run)

    def describe(self, values: Mapping[str, Any], settings: str) -> None:
        """The values are the run's configuration, which has the settings too."""
        self.run.config.update(dict(values), allow_val_change=True)

    def show(self, samples: Sequence[Sample], step: int) -> None:
        """A table."""
        rows = [
            [each.image_id, wandb.Image(each.picture), each.caption, "\n".join(each.references)]
            for each in samples
        ]
        self.logger.log_table(
            "captions", ["id", "picture", "caption", "references"], rows, step=step
        )

    def keep(self, folder: Path) -> None:
        """An artifact of type `model`."""
        artifact = wandb.Artifact(f"checkpoint-{self.run.id}", type="model")
        artifact.add_dir(str(folder))
        self.run.log_artifact(artifact)

    def close(self, succeeded: bool) -> str:
        """End the run and wait until all of it is sent or written."""
        folder = Path(self.run.dir).parent
        address = None if self.run.offline else self.run.url  # W&B warns of the second offline
        self.run.finish(exit_code=0 if succeeded else 1)
        return f"W&B: {address or f'{folder} (to send it: wandb sync {folder})'}"
