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


def settings_as_words(config: Config) -> list[str]:
    """The settings of a small run as the command line takes them."""
    train, gpt2 = config.train, config.train.gpt2
    same = ("data", "features", "out", "work", "curves", "epochs", "batch_size", "ema", "precision")
    return [
        *(f"features.clip={config.features.clip}", "features.kind=pooled"),
        *(f"train.{name}={getattr(train, name)}" for name in (*same, "checkpoint_every")),
        *("train.captions_together=1", "train.pair_prior=[]", "+train.trainer.log_every_n_steps=1"),
        *("train.mapper.kind=linear", "train.mapper.prefix_length=4"),
        f"train.gpt2={{base: null, layers: {gpt2.layers}, width: {gpt2.width}, "
        f"heads: {gpt2.heads}, vocabulary: {gpt2.vocabulary}, dropout: {gpt2.dropout}}}",
        *("generation.max_tokens=10", "generation.num_beams=2"),
    ]
