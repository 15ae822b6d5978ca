"""Compares columns of numbers of two sets of captures with Evidently.

A column has moved if the Kolmogorov-Smirnov test says that the difference is no chance, and if the
Wasserstein distance says that it is large enough to matter. With the test alone, any difference
would count once there are enough captures; with the distance alone, chance would where there are
few.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monitoring.drift.words import word_count

#: One comparison in so many finds, by chance, that something moved.
COMPARISONS = 100
#: Least distance, in standard deviations of the reference.
LEAST_DISTANCE = 0.1
#: Principal components of the features that are compared, those with the most variance.
COMPONENTS = 8


@dataclasses.dataclass(frozen=True)
class ColumnChange:
    """One column in two sets of captures.

    Attributes:
        column: Its name.
        before: Mean of the reference.
        now: Mean of the captures.
        distance: Wasserstein distance, in standard deviations of the reference.
        chance: How often chance alone gives such a difference (p-value of Kolmogorov-Smirnov).
        moved: Whether both say that it has moved.
    """

    column: str
    before: float
    now: float
    distance: float
    chance: float
    moved: bool


class Components:
    """The directions in which usual features differ most.

    Args:
        features: Of usual pictures, [n, D].
    """

    def __init__(self, features: np.ndarray) -> None:
        self.mean = features.mean(0)
        _, _, directions = np.linalg.svd(features - self.mean, full_matrices=False)
        self.directions = directions[:COMPONENTS]

    def columns(self, features: np.ndarray) -> dict[str, np.ndarray]:
        """Coordinates of features [n, D] along each direction, as `feature 1` and so on."""
        coordinates = (features - self.mean) @ self.directions.T
        return {f"feature {n}": column for n, column in enumerate(coordinates.T, start=1)}


def numbers(sample: Mapping[str, Any], components: Components) -> dict[str, np.ndarray]:
    """The columns of numbers of captures, without those that a capture lacks, such as quality.

    Args:
        sample: Name of a column -> values, as `Window.sample` has them.
        components: Of the reference.
    """
    columns = {
        "caption words": np.array([word_count(each) for each in sample["caption"]], float),
        "caption characters": np.array([len(each) for each in sample["caption"]], float),
    }
    for name in ("confidence", "quality", "ood_score"):
        if all(value is not None for value in sample[name]):
            columns[name.replace("_", " ")] = np.array(sample[name], float)
    return {**columns, **components.columns(sample["feature"])}


def feature_shift(before: np.ndarray, now: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates along the direction in which the features of two sets differ most.

    It finds shifts that no principal component shows, since those are where features vary much
    anyway. The direction is that of a linear discriminant, found on one half of each set for the
    coordinates of the other half: on its own half it would find a difference by chance.

    Args:
        before: Features of the reference, [n, D].
        now: Features of the captures, [m, D].

    Returns:
        [n] and [m], in standard deviations of the reference, whose mean is 0.
    """
    from sklearn.covariance import ledoit_wolf

    spread = before.std(0)
    spread[spread == 0] = 1.0
    before, now = before / spread, now / spread  # the covariance is shrunk towards one scale
    found = np.zeros(len(before)), np.zeros(len(now))
    for fold in range(2):
        halves = [each[np.arange(len(each)) % 2 != fold] for each in (before, now)]
        means = [half.mean(0) for half in halves]
        centred = np.concatenate(
            [half - mean for half, mean in zip(halves, means, strict=True)]
        ).astype(np.float64)
        covariance = ledoit_wolf(centred, assume_centered=True)[0]
        direction = np.linalg.lstsq(covariance, means[1] - means[0], rcond=None)[0]
        own = before[fold::2] @ direction
        scale = own.std() or 1.0  # all features alike
        found[0][fold::2] = (own - own.mean()) / scale
        found[1][fold::2] = (now[fold::2] @ direction - own.mean()) / scale
    # The direction leads from `before` to `now`. Where the other halves differ the other way, the
    # difference that was found is chance.
    return found[0], found[1] - min(found[1].mean(), 0.0)


def compare(
    before: Mapping[str, np.ndarray], now: Mapping[str, np.ndarray], page: Path | None = None
) -> list[ColumnChange]:
    """Compare the columns that both have.

    Args:
        before: Name -> values of the reference.
        now: Name -> values of the captures.
        page: Where Evidently's own page is written; None for none.
    """
    evidently, drift = _evidently()
    import pandas

    names = [name for name in before if name in now]
    definition = evidently.DataDefinition(numerical_columns=names)
    sets = [
        evidently.Dataset.from_pandas(
            pandas.DataFrame({name: columns[name] for name in names}), data_definition=definition
        )
        for columns in (now, before)
    ]
    limits = {"ks": 1 / (COMPARISONS * len(names)), "wasserstein": LEAST_DISTANCE}
    metrics = [
        drift(column=name, method=method, threshold=limit)
        for name in names
        for method, limit in limits.items()
    ]
    run = evidently.Report(metrics).run(*sets)
    found: dict[tuple[str, str], float] = {
        (each["config"]["column"], each["config"]["method"]): float(each["value"])
        for each in run.dict()["metrics"]
    }
    if page is not None:
        run.save_html(str(page))
    return [_change(name, before[name], now[name], found, limits) for name in names]


def _change(
    name: str,
    before: np.ndarray,
    now: np.ndarray,
    found: Mapping[tuple[str, str], float],
    limits: Mapping[str, float],
) -> ColumnChange:
    chance, distance = found[name, "ks"], found[name, "wasserstein"]
    moved = chance < limits["ks"] and distance >= limits["wasserstein"]
    return ColumnChange(name, float(before.mean()), float(now.mean()), distance, chance, moved)


def sure_first(changes: Sequence[ColumnChange]) -> list[ColumnChange]:
    """Those that moved first, and of both kinds the largest distance first."""
    return sorted(changes, key=lambda each: (not each.moved, -each.distance))


def _evidently() -> tuple[Any, Any]:
    """The package, and its metric of a column's drift."""
    os.environ.setdefault("DO_NOT_TRACK", "1")
    import pandas.core.dtypes.common as dtypes

    if not hasattr(dtypes, "infer_dtype_from_object"):
        # Evidently 0.7.23 imports it for its tests of column types, which are not used here;
        # pandas 3.1 does not have it any more.
        dtypes.infer_dtype_from_object = None
    import evidently
    from evidently.metrics import ValueDrift

    return evidently, ValueDrift
