"""The plot: share of thumbs up and CIDEr by week, a line for each model version."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

from monitoring.quality.figures import Quality
from monitoring.quality.intervals import Estimate


def draw(quality: Quality, file: Path) -> None:
    """Write the plot as PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib import ticker

    figure, (above, below) = plt.subplots(2, 1, sharex=True, figsize=(9, 6), layout="constrained")
    versions = sorted({(model, version) for _, model, version in quality.weeks})
    for number, (model, version) in enumerate(versions):
        weeks = sorted(week for week, *which in quality.weeks if which == [model, version])
        tallies = [quality.weeks[week, model, version] for week in weeks]
        label, colour = f"{model} {version}", f"C{number % 10}"
        shares = [tally.up_share() for tally in tallies]
        _line(above, weeks, shares, label, colour)
        _line(below, weeks, [tally.cider.estimate() for tally in tallies], label, colour)
    above.set_ylim(0, 1)
    above.yaxis.set_major_formatter(ticker.PercentFormatter(1))
    above.set_title("Share of thumbs that are up", loc="left")
    below.set_ylim(bottom=0)
    below.set_title("CIDEr of captions against their corrections", loc="left")
    below.set_xlabel("week of the caption, from Monday; bars: 95 percent intervals")
    below.tick_params(axis="x", rotation=30)
    for axes in (above, below):
        axes.grid(alpha=0.3)
    if versions:
        above.legend(loc="lower left")
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _line(
    axes: Any, weeks: list[str], estimates: list[Estimate | None], label: str, colour: str
) -> None:
    known = [(monday(week), each) for week, each in zip(weeks, estimates, strict=True) if each]
    axes.errorbar(
        [day for day, _ in known],
        [each.value for _, each in known],
        yerr=[
            [each.value - each.low for _, each in known],
            [each.high - each.value for _, each in known],
        ],
        label=label, color=colour, marker="o", capsize=3,
    )  # fmt: skip


def monday(week: str) -> date:
    """The first day of an ISO week such as `2026-W48`."""
    year, number = week.split("-W")
    return date.fromisocalendar(int(year), int(number), 1)
