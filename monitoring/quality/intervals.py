"""95 percent intervals of a share and of a mean: how far chance alone may have moved them."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

#: Standard deviations of a normal distribution that hold 95 percent of it.
Z = 1.959964


class Estimate(NamedTuple):
    """A figure and its 95 percent interval."""

    value: float
    low: float
    high: float


def share(successes: int, of: int) -> Estimate | None:
    """A share with Wilson's interval (1927), which holds for few and for none; None of nothing."""
    if not of:
        return None
    value, z2 = successes / of, Z * Z
    middle = (value + z2 / (2 * of)) / (1 + z2 / of)
    half = Z / (1 + z2 / of) * math.sqrt(value * (1 - value) / of + z2 / (4 * of * of))
    return Estimate(value, max(0.0, middle - half), min(1.0, middle + half))


@dataclasses.dataclass
class Mean:
    """A mean over values that come one after the other (Welford 1962).

    Attributes:
        count: Of the values.
    """

    count: int = 0
    _mean: float = 0.0
    _squares: float = 0.0

    def add(self, value: float) -> None:
        """Add a value."""
        self.count += 1
        step = value - self._mean
        self._mean += step / self.count
        self._squares += step * (value - self._mean)

    def estimate(self) -> Estimate | None:
        """The mean and its interval; None of fewer than two values, which have none."""
        if self.count < 2:
            return None
        half = Z * math.sqrt(self._squares / (self.count - 1) / self.count)
        return Estimate(self._mean, self._mean - half, self._mean + half)
