"""One TorchServe behind the gateway, and what is known of it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any


@dataclasses.dataclass(eq=False)
class Backend:
    """One TorchServe, and what is known of it.

    Attributes:
        inference: Its address for captions.
        management: Its address for the state of workers and the model's description.
        metrics: Its address for metrics.
        in_flight: Requests for captions or for the description that it has not answered yet.
        description: What it serves; None until it has been asked for.
        captioned: When its last caption came, by `time.monotonic`.
    """

    inference: str
    management: str
    metrics: str
    in_flight: int = 0
    description: dict[str, Any] | None = None
    captioned: float = -math.inf

    @property
    def addresses(self) -> tuple[str, str, str]:
        """The three addresses."""
        return self.inference, self.management, self.metrics
