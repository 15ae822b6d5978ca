"""A run in TensorBoard: a folder of event files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning.loggers import TensorBoardLogger

from training.config import Loggers
from training.loggers.run import Identity
from training.loggers.samples import Sample, sheet


class TensorBoardRun:
    """See `training.loggers.run.Run`. A resumed run writes one more event file into its folder."""

    def __init__(self, settings: Loggers, identity: Identity) -> None:
        folder = Path(settings.folder) / "tensorboard"
        self.logger = TensorBoardLogger(
            folder, name="", version=identity.name, default_hp_metric=False
        )

    def describe(self, values: Mapping[str, Any], settings: str) -> None:
        """Hyperparameters, and the settings as text."""
        self.logger.log_hyperparams(dict(values))
        self.logger.experiment.add_text("settings", _verbatim(settings))

    def show(self, samples: Sequence[Sample], step: int) -> None:
        """A sheet of pictures with captions, and a table of the captions beside the references."""
        writer = self.logger.experiment
        writer.add_image("captions", np.asarray(sheet(samples)), step, dataformats="HWC")
        lines = ["| id | caption | references |", "|---|---|---|"]
        for each in samples:
            cells = [str(each.image_id), each.caption, " / ".join(each.references)]
            lines.append("|" + "|".join(cell.replace("|", "\\|") for cell in cells) + "|")
        writer.add_text("captions", "\n".join(lines), step)

    def keep(self, folder: Path) -> None:
        """TensorBoard stores no files: the folder's name and the SHA-256 of its files as text."""
        lines = [str(folder.resolve())]
        for file in sorted(each for each in folder.rglob("*") if each.is_file()):
            with file.open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").hexdigest()
            lines.append(f"{digest}  {file.relative_to(folder)}")
        self.logger.experiment.add_text("checkpoint", _verbatim("\n".join(lines)))

    def close(self, succeeded: bool) -> str:
        """Write what is buffered."""
        self.logger.experiment.close()
        root = self.logger.root_dir
        return f"TensorBoard: {self.logger.log_dir} (to see it: tensorboard --logdir {root})"


def _verbatim(text: str) -> str:
    """Text as a block of Markdown, in which TensorBoard shows texts."""
    return "\n".join(f"    {line}" for line in text.splitlines())
