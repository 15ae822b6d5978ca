"""The chart of an evaluation: CIDEr of every split beside that of people, and the checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.evaluation.report.page import Figures
from training.evaluation.scores.checks import Checks

#: Colours of the chart.
_MODEL, _HUMAN = "#1f6f78", "#c9b890"
_SPLITS = ("#1f6f78", "#d98e4a", "#8a6fa8")
#: In inches: least width of the part with CIDEr, room for the label of a split, width of the bars.
_WIDTH, _LABEL, _BARS = 4.0, 1.5, 7.4


def draw_chart(
    file: Path,
    figures: Figures,
    checks: Checks | None = None,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Draw CIDEr of every split beside that of people, and the bars of the checks.

    Args:
        file: The picture; its suffix decides the format.
        figures: Split name -> figures of `scoring.score` and of the checks.
        checks: The checks of the data set, or None.
        settings: Split -> `Scores.setting`.
    """
    own = max(_WIDTH, _LABEL * len(figures))
    ratios = (own, _BARS) if checks else (own,)
    chart = Figure(figsize=(sum(ratios), 4.2), layout="constrained", dpi=130)
    axes: Sequence[Axes] = chart.subplots(1, len(ratios), width_ratios=ratios, squeeze=False)[0]
    _draw_cider(axes[0], figures, settings)
    if checks:
        _draw_bars(axes[1], figures, checks)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(length=0)
        axis.legend(
            frameon=False, fontsize=8, ncols=3, loc="lower right", bbox_to_anchor=(1, 0.995)
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    chart.savefig(file)


def _draw_cider(axis: Axes, figures: Figures, settings: Mapping[str, str]) -> None:
    """CIDEr of the model and, where it is known, of a person."""
    bars_of = {"CIDEr": ("model", _MODEL), "human_CIDEr": ("a person", _HUMAN)}
    names = [name for name in bars_of if any(name in own for own in figures.values())]
    for offset, name in enumerate(names):
        label, colour = bars_of[name]
        bars = axis.bar(
            [i + 0.38 * (offset - (len(names) - 1) / 2) for i in range(len(figures))],
            [own.get(name, 0.0) for own in figures.values()],
            0.34,
            color=colour,
            label=label,
        )
        axis.bar_label(bars, fmt="%.2f", fontsize=8, padding=2)
    labels = [f"{split}\n{settings.get(split, '')}".strip() for split in figures]
    axis.set_xticks(range(len(figures)), labels, fontsize=9)
    axis.set_title("CIDEr", loc="left")
    axis.margins(y=0.1)


def _draw_bars(axis: Axes, figures: Figures, checks: Checks) -> None:
    """The bars of the checks, in per cent, those of the splits side by side."""
    width = 0.8 / len(figures)
    for offset, (split, own) in enumerate(figures.items()):
        bars = axis.bar(
            [i + width * (offset - (len(figures) - 1) / 2) for i in range(len(checks.bars))],
            [100 * own.get(name, 0.0) for name in checks.bars],
            width * 0.92,
            color=_SPLITS[offset % len(_SPLITS)],
            label=split,
        )
        axis.bar_label(bars, fmt="%.0f", fontsize=7, padding=2)
    axis.set_xticks(range(len(checks.bars)), list(checks.bars.values()))
    axis.set_ylim(0, 112)
    axis.set_yticks(range(0, 101, 20))
    axis.set_title(checks.bars_title, loc="left")
