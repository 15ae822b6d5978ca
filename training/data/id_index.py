"""Finds image ids in a list of ids by binary search in flat arrays.

A dict of a million ids takes 100 MB of Python objects; these arrays take 16 MB.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


class IdIndex:
    """Image ids and the row (index in the list) of each.

    Args:
        ids: [N], in any order.

    Attributes:
        ids: The same, int64 [N].
    """

    def __init__(self, ids: ArrayLike) -> None:
        self.ids = np.asarray(ids, np.int64)
        self._order = np.argsort(self.ids, kind="stable")
        self._sorted = self.ids[self._order]

    def rows(self, wanted: ArrayLike) -> np.ndarray:
        """Row of each wanted id, int64 of the same shape; -1 for an id that is not in the list."""
        wanted = np.asarray(wanted, np.int64)
        if not len(self.ids):
            return np.full(wanted.shape, -1)
        found = np.searchsorted(self._sorted, wanted).clip(max=len(self.ids) - 1)
        return np.where(self._sorted[found] == wanted, self._order[found], -1)

    def every(self, wanted: int) -> list[int]:
        """All rows of an id, in order."""
        start = np.searchsorted(self._sorted, wanted)
        end = np.searchsorted(self._sorted, wanted, side="right")
        return self._order[start:end].tolist()

    def repeated(self) -> int | None:
        """An id that is in the list more than once; None if there is none."""
        repeated = self._sorted[1:][self._sorted[1:] == self._sorted[:-1]]
        return int(repeated[0]) if len(repeated) else None
