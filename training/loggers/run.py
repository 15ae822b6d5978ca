"""One logger of a run: what each of them can record; the run's name and ids."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from pytorch_lightning.loggers import Logger

from training.loggers.samples import Sample


class Run(Protocol):
    """A run in one of the loggers.

    Attributes:
        logger: Lightning's logger, which records the metrics.
    """

    logger: Logger

    def describe(self, values: Mapping[str, Any], settings: str) -> None:
        """Record what the run was made from.

        Args:
            values: As from `training.loggers.provenance`.
            settings: All settings as YAML.
        """

    def show(self, samples: Sequence[Sample], step: int) -> None:
        """Record captions of pictures, at an optimiser step."""

    def keep(self, folder: Path) -> None:
        """Record the checkpoint folder as an artifact."""

    def close(self, succeeded: bool) -> str:
        """End the run; returns where it is found, in words."""


@dataclasses.dataclass
class Identity:
    """What a resumed run goes on with; a file in the work folder holds it.

    Attributes:
        name: The run's name, in all loggers.
        ids: Logger -> its id of the run. A logger that is named only when a run is resumed has
            none yet, and begins a new run.
    """

    name: str
    ids: dict[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, file: Path, name: str | None, resume: bool) -> Identity:
        """That of the run which is resumed, or a new one.

        Args:
            file: Where `save` puts it.
            name: Name of a new run; None for `run-` and the time.
            resume: Whether the run is resumed.
        """
        if resume and file.exists():
            return cls(**json.loads(file.read_text()))
        return cls(name or f"run-{datetime.datetime.now():%Y-%m-%d-%H-%M-%S}")

    def save(self, file: Path) -> None:
        """Write it for a resumed run."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")
