"""Bounds the memory in which the threads of a worker decode pictures at a time.

Every thread decodes a picture of its own. Without a common bound the memory of large pictures would
grow with the number of cores.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from handler.requests.caption_request import deadline_passed
from model.image.decode import BYTES_PER_PIXEL

#: Memory for decoding, as a multiple of what a picture of `max_pixels` takes.
LARGEST_PICTURES = 2


class DecodingMemory:
    """Memory that threads reserve, and wait for while others have it.

    Args:
        max_pixels: The limit of width x height of one picture.
    """

    def __init__(self, max_pixels: int) -> None:
        self.limit = LARGEST_PICTURES * BYTES_PER_PIXEL * max_pixels
        self.used = 0
        self._freed = threading.Condition()

    @contextlib.contextmanager
    def reserve(self, needed: int, deadline: float) -> Iterator[None]:
        """Hold memory during the `with` block; wait for it first, if others have it.

        Args:
            needed: Bytes. A picture that needs more than the limit is decoded while no other is.
            deadline: On the clock of `time.monotonic`.

        Raises:
            RequestRefusal: There was not enough memory before the deadline.
        """
        share = min(needed, self.limit)
        with self._freed:
            left = max(0.0, deadline - time.monotonic())
            if not self._freed.wait_for(lambda: self.used + share <= self.limit, left):
                raise deadline_passed()
            self.used += share
        try:
            yield
        finally:
            with self._freed:
                self.used -= share
                self._freed.notify_all()
