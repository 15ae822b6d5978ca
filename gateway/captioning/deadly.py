"""Pictures that ended the captioner's process, remembered so that they do it no more.

Many clients repeat a request that got a 500 by themselves.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Mapping

from gateway.errors import GatewayError

#: Seconds for which a picture is remembered.
SECONDS = 300.0
#: Pictures that are remembered at most; the oldest are forgotten.
MANY = 1000


class DeadlyPictures:
    """Pictures that, with the same options, ended the process twice a short time ago."""

    def __init__(self) -> None:
        self._until: OrderedDict[bytes, float] = OrderedDict()  # fingerprint -> time.monotonic

    def add(self, picture: bytes, options: Mapping[str, str]) -> None:
        """Remember a picture."""
        self._until[_fingerprint(picture, options)] = time.monotonic() + SECONDS
        while len(self._until) > MANY:
            self._until.popitem(last=False)

    def check(self, picture: bytes, options: Mapping[str, str]) -> None:
        """Refuse a picture that is remembered.

        Raises:
            GatewayError: It is.
        """
        now = time.monotonic()
        while self._until and next(iter(self._until.values())) < now:
            self._until.popitem(last=False)
        # The hash of a large picture takes some milliseconds, so it is taken only if need be.
        if self._until and _fingerprint(picture, options) in self._until:
            raise worker_failed()


def worker_failed() -> GatewayError:
    """The error of a picture that ended the captioner's process twice."""
    return GatewayError(
        500,
        "worker_failed",
        "the captioner's process ended twice while it captioned this picture; the picture or its "
        f"options may be the cause; it is not tried again for {SECONDS:g} s",
    )


def _fingerprint(picture: bytes, options: Mapping[str, str]) -> bytes:
    whole = hashlib.sha256(picture)
    whole.update(repr(sorted(options.items())).encode())
    return whole.digest()
