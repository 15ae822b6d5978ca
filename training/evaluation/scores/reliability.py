"""How far a score between 0 and 1 can be trusted to tell right captions from wrong ones.

Axes: n captions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

#: Bins of equal width of the expected calibration error.
BINS = 10
#: Shares of the captions that are kept, in the curve.
SHARES = tuple(tenth / 10 for tenth in range(10, 0, -1))


class Kept(NamedTuple):
    """The captions with the highest scores.

    Attributes:
        share: Their share of all captions.
        threshold: The lowest score among them.
        right: Share of them that is right.
    """

    share: float
    threshold: float
    right: float


class Judged(NamedTuple):
    """The captions of a split: their qualities, their confidences, and which are right."""

    quality: Sequence[float]
    confidence: Sequence[float]
    right: Sequence[bool]

    def figures(self) -> dict[str, float]:
        """AUROC of both, and the calibration error of the quality; those that there are."""
        found = {
            "quality_AUROC": auroc(self.quality, self.right),
            "quality_ECE": calibration_error(self.quality, self.right),
            "confidence_AUROC": auroc(self.confidence, self.right),
        }
        return {name: value for name, value in found.items() if value is not None}

    def curve(self) -> list[Kept]:
        """Share of right captions among those with the highest quality."""
        return kept_curve(self.quality, self.right)


def auroc(scores: Sequence[float], right: Sequence[bool]) -> float | None:
    """Chance that a right caption has a higher score than a wrong one, from 0 to 1; 0.5 is none.

    Returns:
        None where all captions are right, or all are wrong.
    """
    true = np.asarray(right, bool)
    _, place, count = np.unique(np.asarray(scores, float), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[place]  # equal scores share their mean rank
    positive, negative = int(true.sum()), int((~true).sum())
    if not positive or not negative:
        return None
    return float((ranks[true].sum() - positive * (positive + 1) / 2) / (positive * negative))


def calibration_error(scores: Sequence[float], right: Sequence[float]) -> float:
    """Expected calibration error, from 0 to 1: how far scores are from the share that is right.

    The captions are put into `BINS` bins of equal width by their scores. The result is the mean
    over the captions of |mean score - share that is right| of their bin (Naeini et al., AAAI 2015).
    """
    values, true = np.asarray(scores, float), np.asarray(right, float)
    bins = np.minimum((values * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, values - true, BINS)
    return float(np.abs(gaps).sum() / len(values)) if len(values) else 0.0


def kept_curve(scores: Sequence[float], right: Sequence[float]) -> list[Kept]:
    """Share of right captions among those with the highest scores, for each of `SHARES`."""
    values, true = np.asarray(scores, float), np.asarray(right, float)
    order = np.argsort(-values, kind="stable")
    curve = []
    for share in SHARES:
        chosen = order[: round(share * len(order))]
        if len(chosen):
            curve.append(Kept(share, float(values[chosen[-1]]), float(true[chosen].mean())))
    return curve
