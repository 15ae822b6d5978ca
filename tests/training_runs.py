"""Small trainings of the captioner: their settings, and what they wrote."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from model.checkpoint import Checkpoint
from training.config import Config

#: `variant(name, **changes)`: the settings of a small run with changes, writing to a place of its
#: own (the fixture `variant`).
Variant = Callable[..., Config]


def weights(folder: str | Path) -> dict[str, Tensor]:
    """The weights of a checkpoint folder."""
    return Checkpoint.load(folder).captioner.state_dict()


def rows(file: Path) -> list[dict[str, str]]:
    """The rows of a CSV table."""
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))
