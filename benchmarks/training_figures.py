"""Tables of `train`, `features` and `quality`, and the page on training that has them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.pages import Row, table

#: How GPT-2 is trained in `train`.
TUNINGS = ("frozen", "full")
#: Splits that `quality` scores on.
SPLITS = ("test", "compositional")
#: Figures of a split, and their titles.
FIGURES = {
    "CIDEr": "CIDEr",
    "CLIPScore": "CLIPScore",
    "precision": "precision",
    "recall": "recall",
    "hallucination_rate": "hallucination",
}


def train_table(results: Row) -> str:
    """A row for each system: seconds, tokens a second, how many times the original's, memory."""
    rows = []
    for tuning in TUNINGS:
        own = [row for row in results["measured"] if row["tuning"] == tuning]
        first, limit = own[0]["seconds"], own[-1]["seconds"]
        for row in own:
            shown = {"rate": results["tokens"] / row["seconds"], "times": first / row["seconds"]}
            rows.append({**row, **shown, "share": limit / row["seconds"]})
    columns = {"GPT-2": "{tuning}", "system": "{system}", "s a step": "{seconds:.2f}"}
    columns |= {"tokens/s": "{rate:.0f}", "x original": "{times:.1f}"}
    columns |= {"of the limit": "{share:.0%}", "peak": "{peak_mb} MB"}
    return table(columns, rows)


def features_table(results: Row) -> str:
    """A row for each system."""
    first = results["measured"][0]["seconds"]
    rows = [
        {**row, "rate": results["images"] / row["seconds"], "times": first / row["seconds"]}
        for row in results["measured"]
    ]
    columns = {"system": "{system}", "s": "{seconds:.1f}", "images/s": "{rate:.1f}"}
    return table({**columns, "x original": "{times:.1f}"}, rows)


def spread(measured: Sequence[Row], split: str, figure: str) -> dict[str, list[float]]:
    """Recipe -> the figure of each seed."""
    values: dict[str, list[float]] = {}
    for each in measured:
        values.setdefault(each["recipe"], []).append(each[split][figure])
    return values


def quality_table(results: Mapping[str, Any], split: str) -> str:
    """A row for each recipe: the median of its seeds, the least and the largest."""
    rows: dict[str, dict[str, str]] = {}
    for figure in FIGURES:
        for recipe, values in spread(results["measured"], split, figure).items():
            percent = figure not in ("CIDEr", "CLIPScore")
            shown = [f"{value:.1%}" if percent else f"{value:.2f}" for value in sorted(values)]
            middle = statistics.median(values)
            text = f"{middle:.1%}" if percent else f"{middle:.2f}"
            text += f" ({shown[0]} to {shown[-1]})" if len(values) > 1 else ""
            rows.setdefault(recipe, {"recipe": recipe})[figure] = text
    columns = {"recipe": "{recipe}"} | {title: f"{{{name}}}" for name, title in FIGURES.items()}
    return table(columns, rows.values())


def training_section(measured: Mapping[str, Mapping[str, Any]], quality: Row | None) -> str:
    """What stands between the marks of the page on training.

    Args:
        measured: Kind of processor -> its results by name, of which `train` and `features` count.
        quality: `quality.json`, if it was measured.
    """
    parts = []
    for kind, files in measured.items():
        if "train" in files:
            own = files["train"]
            parts += [
                f"### A training step, {kind}",
                f"{own['batch']} captions, {own['tokens']} tokens a step "
                f"(`{own['command']}`, {_where(own)}):",
                train_table(own),
            ]
        if "features" in files:
            own = files["features"]
            parts += [
                f"### Encoding {own['images']} pictures, {kind}",
                f"`{own['command']}`, {_where(own)}:",
                features_table(own),
            ]
    if quality is not None:
        sizes = ", ".join(f"{count} {split}" for split, count in quality["scenes"].items())
        parts += [
            "### The original's recipe and ours",
            f"Median of the seeds, the least and the largest. Scenes: {sizes}; "
            f"{quality['epochs']} epochs (`{quality['command']}`, {_where(quality)}).",
        ]
        for split in SPLITS:
            parts += [f"On {split}:", quality_table(quality, split)]
    return "\n\n".join(parts)


def _where(results: Row) -> str:
    return f"{results['cores']} cores, {results['processor']}, {results['date']}"
