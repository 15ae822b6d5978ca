"""Figures of a Prometheus histogram, with intervals that hold them in 95 of 100 cases.

A histogram has counts by upper limits and a sum, not the values themselves. Inside of a bucket the
values are taken to be spread evenly, as `histogram_quantile` of Prometheus does.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

#: Standard deviations of the normal distribution for 95%.
Z = 1.96


@dataclasses.dataclass(frozen=True)
class Interval:
    """A figure, and the limits between which it lies.

    Attributes:
        value: The figure; NaN if there is nothing to tell it from.
        low: Its lower limit.
        high: Its upper limit.
    """

    value: float
    low: float
    high: float

    def differs_from(self, other: Interval) -> bool:
        """Whether the two have no value in common."""
        return self.low > other.high or self.high < other.low


#: Of a figure that nothing is known of.
UNKNOWN = Interval(math.nan, math.nan, math.nan)


@dataclasses.dataclass(frozen=True)
class Histogram:
    """Counts of values.

    Attributes:
        limits: Upper limits of the buckets, ascending; the last one is infinite.
        counts: How many values are in each bucket, and in no lower one.
        total: Sum of all values.
    """

    limits: Sequence[float]
    counts: Sequence[float]
    total: float

    @property
    def count(self) -> float:
        """How many values there are."""
        return sum(self.counts)

    def mean(self) -> Interval:
        """The mean. Its interval comes from the spread of the buckets."""
        if not self.count:
            return UNKNOWN
        mean = self.total / self.count
        square = sum(
            count * (middle - mean) ** 2
            for count, middle in zip(self.counts, self._middles(), strict=True)
        )
        half = Z * math.sqrt(square / max(1.0, self.count - 1) / self.count)
        return Interval(mean, mean - half, mean + half)

    def quantile(self, share: float) -> Interval:
        """The value below which a share of the values is, from 0 to 1.

        The limits of its interval are those of the values whose ranks the quantile may have.
        """
        if not self.count:
            return UNKNOWN
        half = Z * math.sqrt(share * (1 - share) / self.count)
        low, value, high = (
            self._at(min(1.0, max(0.0, each))) for each in (share - half, share, share + half)
        )
        return Interval(value, low, high)

    def _at(self, share: float) -> float:
        wanted, before = share * self.count, 0.0
        for index, count in enumerate(self.counts):
            if count and before + count >= wanted:
                begin = self.limits[index - 1] if index else 0.0
                end = self.limits[index]
                if math.isinf(end):  # all that is known of the slowest
                    return begin
                return begin + (end - begin) * (wanted - before) / count
            before += count
        return self.limits[-2]

    def _middles(self) -> list[float]:
        begins = [0.0, *self.limits[:-1]]
        return [
            begin if math.isinf(end) else (begin + end) / 2
            for begin, end in zip(begins, self.limits, strict=True)
        ]


def share_of(part: float, whole: float) -> Interval:
    """A share, from 0 to 1, and its interval after Wilson (1927), which holds for few and for 0.

    Args:
        part: How many of them.
        whole: How many there are.
    """
    if not whole:
        return UNKNOWN
    share, square = part / whole, Z * Z
    middle = (share + square / (2 * whole)) / (1 + square / whole)
    half = share * (1 - share) / whole + square / (4 * whole * whole)
    half = Z / (1 + square / whole) * math.sqrt(half)
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half))
