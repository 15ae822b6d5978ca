"""When the steps of a batch began and ended, for the log and for traces.

All requests of a batch go through its steps together, so each of them took as long as the batch.
"""

from __future__ import annotations

import dataclasses
import time


@dataclasses.dataclass(frozen=True)
class Phase:
    """One step of a batch.

    Attributes:
        name: What was done: `decode`, `encode`, `generate` or `explain`.
        begin: When it began, in seconds since 1970.
        seconds: How long it took.
    """

    name: str
    begin: float
    seconds: float


class Phases:
    """The steps of one batch, which begins now.

    Attributes:
        begin: When the batch began, in seconds since 1970.
        found: Its steps so far.
    """

    def __init__(self) -> None:
        self.begin = time.time()
        self.found: list[Phase] = []
        self._origin = self.begin - time.monotonic()

    def add(self, name: str, begin: float, seconds: float) -> None:
        """Note a step.

        Args:
            name: What was done.
            begin: On the clock of `time.monotonic`.
            seconds: How long it took.
        """
        self.found.append(Phase(name, self._origin + begin, seconds))

    def end(self) -> float:
        """Now, in seconds since 1970, as if the clock had not been set since the batch began."""
        return self._origin + time.monotonic()
