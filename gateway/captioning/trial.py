"""A second captioner that is tried out: its share of the requests, and when it gets no more.

A request goes to the candidate by the hash of its id, so that it does not depend on the gateway
that serves it, and that a request which is sent again with the same id goes to the same captioner.
The gateway makes a random id for a request without one, so the hash is a random draw for these. All
pictures of a request go to the same captioner.
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque

from gateway.captioning.backend import Backend
from gateway.settings import WINDOW

logger = logging.getLogger(__name__)

#: The captioner that requests go to, and the one that is tried out beside it.
STABLE, CANDIDATE = "stable", "candidate"


class Trial:
    """What a candidate gets.

    Args:
        backend: The TorchServe that serves it.
        share: Percent of the requests, 0 to 100.
        shadow: Whether it gets a copy of them, so that its replies are compared and thrown away.
        failures: So many of the last `WINDOW` pictures end the trial.

    Attributes:
        stopped: Whether the candidate has failed too often and gets nothing more.
    """

    def __init__(self, backend: Backend, share: float, shadow: bool, failures: int) -> None:
        self.backend = backend
        self.share = share
        self.shadow = shadow
        self.failures = failures
        self.stopped = False
        self._failed: deque[bool] = deque(maxlen=WINDOW)

    def takes(self, request_id: str) -> bool:
        """Whether a request goes to the candidate.

        Args:
            request_id: Its id.
        """
        if self.stopped:
            return False
        digest = hashlib.blake2b(request_id.encode(), digest_size=8).digest()
        return int.from_bytes(digest) < self.share / 100 * 2**64

    def note(self, *, failed: bool) -> None:
        """Note what became of a picture; too many failures end the trial."""
        self._failed.append(failed)
        count = sum(self._failed)
        if count >= self.failures and not self.stopped:
            self.stopped = True
            logger.error(
                "candidate %s: stopped after %d failures in its last %d pictures; all requests go "
                "to the stable captioner",
                self.backend.inference,
                count,
                len(self._failed),
            )

    def __str__(self) -> str:
        """What it gets, in the words of the log, which `deploy/gateway_backend.py` reads."""
        what = "a copy of " if self.shadow else ""
        return f"{self.backend.inference} gets {what}{self.share:g}% of the requests"
