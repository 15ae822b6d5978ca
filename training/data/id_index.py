"""Where an image id stands in a list of ids: binary search in flat arrays.

A dict of a million ids takes 100 MB of Python objects, this takes 16 MB.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


class IdIndex:
    """Image ids and their places.

    Args:
        ids: Each once, in any order, [N].

    Attributes:
        ids: The same, int64.
    """

    def __init__(self, ids: ArrayLike) -> None:
        self.ids = np.asarray(ids, np.int64)
        self._order = np.argsort(self.ids, kind="stable")
        self._sorted = self.ids[self._order]

    def places(self, wanted: ArrayLike) -> np.ndarray:
        """Place of each wanted id, int64, -1 for one that is not there."""
        wanted = np.asarray(wanted, np.int64)
        if not len(self.ids):
            return np.full(wanted.shape, -1)
        found = np.searchsorted(self._sorted, wanted).clip(max=len(self.ids) - 1)
        return np.where(self._sorted[found] == wanted, self._order[found], -1)

    def repeated(self) -> int | None:
        """An id that stands there more than once."""
        again = self._sorted[1:][self._sorted[1:] == self._sorted[:-1]]
        return int(again[0]) if len(again) else None
