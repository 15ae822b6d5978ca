"""What a sweep found: a table of its trials, a plot, and the line to type for the best settings."""

from __future__ import annotations

import csv
import shlex
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from optuna.trial import FrozenTrial, TrialState

from training.sweeping.space import Search

#: Panels of a row of the plot.
ACROSS = 4
#: How the table names the states of trials.
STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "ended early",
    TrialState.FAIL: "refused or killed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


def write_table(
    search: Search, trials: Sequence[FrozenTrial], best: FrozenTrial | None, out: Path
) -> str:
    """Write `trials.csv` and `trials.txt`.

    Args:
        search: What was varied.
        trials: All trials, by number.
        best: The best one; None if none is complete.
        out: Folder of the files.

    Returns:
        The text of `trials.txt`: the trials, the best first, and the lines to type.
    """
    header = ["trial", "state", "CIDEr", "epochs", "seconds"]
    header += [each.key for each in search.dimensions]
    rows = [_row(search, trial) for trial in trials if trial.state != TrialState.WAITING]
    with (out / "trials.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    rows.sort(key=lambda row: (row[1] != STATES[TrialState.COMPLETE], -float(row[2] or 0)))
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, *rows]
    ]
    if best is not None:
        lines += [
            "",
            f"best: trial {best.number}, CIDEr {best.value:.3f}",
            *_commands(search, best),
        ]
    text = "\n".join(lines) + "\n"
    (out / "trials.txt").write_text(text)
    return text


def _row(search: Search, trial: FrozenTrial) -> list[str]:
    """A trial as cells; its score is the best epoch's, also if it was ended early."""
    scores = trial.intermediate_values.values()
    score = f"{max(scores):.3f}" if scores else ""
    seconds = f"{trial.duration.total_seconds():.0f}" if trial.duration else ""
    epochs = str(trial.user_attrs.get("epochs", 0))
    settings = [_said(trial.params.get(each.key, "")) for each in search.dimensions]
    return [str(trial.number), STATES[trial.state], score, epochs, seconds, *settings]


def _said(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _commands(search: Search, best: FrozenTrial) -> list[str]:
    """The lines that train with the best settings."""
    fixed = [word for word in search.fixed if not word.startswith("sweep")]
    found = [each.word(best.params[each.key]) for each in search.dimensions]
    stages = ["features", "train"] if any(w.startswith("features.") for w in found) else ["train"]
    return [shlex.join(["python", "-m", f"training.{s}", *fixed, *found]) for s in stages]


def plot(
    search: Search, trials: Sequence[FrozenTrial], best: FrozenTrial | None, file: Path
) -> None:
    """Draw scores over the trials, how much each setting matters, and scores over each setting.

    Args:
        search: What was varied.
        trials: All trials.
        best: The best one; None if none is complete.
        file: The PNG; it is not written if no trial has a score.
    """
    scored = [trial for trial in trials if trial.intermediate_values]
    if not scored:
        return
    panels = 2 + len(search.dimensions)
    down = -(-panels // ACROSS)
    figure = Figure(figsize=(3.4 * ACROSS, 3.2 * down), layout="constrained")
    history, importance, *slices = figure.subplots(down, ACROSS, squeeze=False).flat
    _draw(history, scored, [trial.number for trial in scored])
    history.set(xlabel="trial", ylabel="validation CIDEr")
    history.legend(fontsize="small")
    shares = _importances(scored)
    importance.barh([name.partition(".")[2] for name in shares], list(shares.values()))
    importance.set(xlabel="importance (PED-ANOVA)")
    if not shares:
        importance.set(xticks=[], yticks=[])
        importance.text(0.5, 0.5, "too few trials", ha="center", transform=importance.transAxes)
    for axes, each in zip(slices, search.dimensions, strict=False):
        _draw(axes, scored, [trial.params.get(each.key) for trial in scored])
        axes.set(xlabel=each.key)
        if each.log:
            axes.set_xscale("log")
    for unused in slices[len(search.dimensions) :]:
        unused.axis("off")
    if best is not None:
        history.axhline(best.value or 0, color="tab:green", linewidth=0.8)
    figure.savefig(file, dpi=110)


def _draw(axes: Axes, trials: Sequence[FrozenTrial], places: Sequence[Any]) -> None:
    """Points of all trials at these places on the x-axis, those that were ended early in red."""
    for state, colour in ((TrialState.COMPLETE, "tab:blue"), (TrialState.PRUNED, "tab:red")):
        points = [(x, t) for x, t in zip(places, trials, strict=True) if t.state == state]
        scores = [max(trial.intermediate_values.values()) for _, trial in points]
        if points:
            axes.scatter([x for x, _ in points], scores, s=14, color=colour, label=STATES[state])


def _importances(trials: Sequence[FrozenTrial]) -> dict[str, float]:
    """Setting -> its share of what explains the score (Watanabe et al., arXiv 2304.10255).

    Empty if there are too few complete trials to tell.
    """
    study = optuna.create_study(direction="maximize")
    study.add_trials([trial for trial in trials if trial.state == TrialState.COMPLETE])
    if len(study.trials) < 4:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.importance.get_param_importances(study)
