"""The TorchServe that requests go to, and those that were left while they had requests."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
from collections.abc import Iterator
from typing import Any

from gateway.settings import Settings

logger = logging.getLogger(__name__)


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


class Backends:
    """Where requests go.

    Args:
        settings: The addresses to begin with.

    Attributes:
        current: The TorchServe of requests that begin now.
        former: Those that were left and have requests in flight.
    """

    def __init__(self, settings: Settings) -> None:
        self.current = Backend(*_addresses(settings))
        self.former: list[Backend] = []
        self._log_current()

    @contextlib.contextmanager
    def using(self) -> Iterator[Backend]:
        """The TorchServe of a request that begins; it counts as in flight until the `with` ends."""
        backend = self.current
        backend.in_flight += 1
        try:
            yield backend
        finally:
            backend.in_flight -= 1
            self._forget_idle()

    def move_to(self, settings: Settings) -> None:
        """Send requests that begin from now on to other addresses; the others end where they began.

        What is known of the captioner is forgotten, also if the addresses are the same, because
        another archive may be served there.

        Args:
            settings: The addresses; nothing else of it is used.
        """
        known = [self.current, *self.former]
        wanted = _addresses(settings)
        # One that was left may be still busy when it is taken again.
        chosen = next((each for each in known if each.addresses == wanted), Backend(*wanted))
        chosen.description, chosen.captioned = None, -math.inf
        self.current = chosen
        self.former = [each for each in known if each is not chosen]
        self._log_current()
        self._forget_idle()

    def _log_current(self) -> None:
        logger.info("captions come from %s", self.current.inference)

    def _forget_idle(self) -> None:
        for each in [each for each in self.former if not each.in_flight]:
            self.former.remove(each)
            logger.info("backend %s: its last request has ended", each.inference)


def _addresses(settings: Settings) -> tuple[str, str, str]:
    return (
        settings.inference.rstrip("/"),
        settings.management.rstrip("/"),
        settings.metrics.rstrip("/"),
    )
