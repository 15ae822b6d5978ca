"""The TorchServe that requests go to, one that is tried out, and those that were left.

Those that were left are kept while they have requests.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterator

from gateway.captioning.backend import Backend
from gateway.captioning.trial import Trial
from gateway.settings import Settings

logger = logging.getLogger(__name__)


class Backends:
    """Where requests go.

    Args:
        settings: The addresses to begin with.

    Attributes:
        current: The TorchServe of requests that begin now.
        trial: What another one gets of them; None if none is tried out.
        former: Those that were left and have requests in flight.
        on_change: Called when the current one or the one that is tried out is another one.
    """

    def __init__(self, settings: Settings) -> None:
        self.current = Backend(*_addresses(settings))
        self.trial: Trial | None = None
        self.former: list[Backend] = []
        self.on_change: Callable[[], None] | None = None
        self._log_current()
        self._set_trial(settings, [self.current])

    @property
    def all(self) -> list[Backend]:
        """Every one: the current one first, then the candidate, then those that were left."""
        return [self.current, *([self.trial.backend] if self.trial else []), *self.former]

    @contextlib.contextmanager
    def using(self, backend: Backend | None = None) -> Iterator[Backend]:
        """The TorchServe of a request that begins; it counts as in flight until the `with` ends.

        Args:
            backend: One of `all`; None for the current one.
        """
        backend = backend or self.current
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
            settings: The addresses, and those of the candidate; nothing else of it is used.
        """
        known, before = self.all, self._pair()
        wanted = _addresses(settings)
        # One that was left may be still busy when it is taken again.
        chosen = next((each for each in known if each.addresses == wanted), Backend(*wanted))
        chosen.description, chosen.captioned = None, -math.inf
        self.current = chosen
        self._log_current()
        self._set_trial(settings, known)
        now = self._pair()
        self.former = [each for each in known if each not in now]
        if now != before and self.on_change:
            self.on_change()
        self._forget_idle()

    def _pair(self) -> list[Backend | None]:
        return [self.current, self.trial.backend if self.trial else None]

    def _set_trial(self, settings: Settings, known: list[Backend]) -> None:
        """Begin, change or end a trial. One that does not change goes on, stopped if it was."""
        before, self.trial = self.trial, None
        if settings.candidate_inference:
            wanted = _candidate(settings)
            backend = next((each for each in known if each.addresses == wanted), Backend(*wanted))
            trial = Trial(
                backend,
                settings.candidate_share,
                settings.candidate_shadow,
                settings.candidate_failures,
            )
            same = before is not None and before.backend is backend and str(before) == str(trial)
            self.trial = before if same else trial
        if before or self.trial:
            logger.info("candidate: %s", self.trial or "none")

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


def _candidate(settings: Settings) -> tuple[str, str, str]:
    return (
        settings.candidate_inference.rstrip("/"),
        settings.candidate_management.rstrip("/"),
        settings.candidate_metrics.rstrip("/"),
    )
