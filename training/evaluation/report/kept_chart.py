"""The chart of how many captions are right, of those that are kept by their quality."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from training.evaluation.scores.reliability import Kept

_COLOURS = ("#1f6f78", "#d98e4a", "#8a6fa8")


def kept_chart(curves: Mapping[str, Sequence[Kept]]) -> str | None:
    """A chart of the curves of all splits.

    Args:
        curves: Split -> its curve.

    Returns:
        A PNG as a data URI; None where there is no curve.
    """
    if not curves:
        return None
    chart = Figure(figsize=(6.4, 3.8), layout="constrained", dpi=130)
    axis = chart.subplots()
    for number, (split, curve) in enumerate(curves.items()):
        axis.plot(
            [100 * kept.share for kept in curve],
            [100 * kept.right for kept in curve],
            marker="o",
            color=_COLOURS[number % len(_COLOURS)],
            label=split,
        )
    axis.set_xlabel("captions kept, those with the highest quality, per cent")
    axis.set_ylabel("of them right, per cent")
    axis.set_xlim(0, 105)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    data = io.BytesIO()
    chart.savefig(data, format="png", metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()
