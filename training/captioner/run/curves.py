"""Curves of a training run: CSV tables of losses and validation scores, for plotting."""

from __future__ import annotations

import csv
from pathlib import Path


def write_curves(logs: Path, folder: Path) -> None:
    """Write `loss.csv` (by step) and `validation.csv` (by epoch) from Lightning's logs.

    An interrupted and resumed run has one log for each part. Of a step that two parts logged, the
    later part counts.

    Args:
        logs: Folder of Lightning's `version_N` folders.
        folder: Folder of the tables.
    """
    rows: list[dict[str, str]] = []
    for log in sorted(logs.glob("version_*/metrics.csv"), key=lambda f: int(f.parent.name[8:])):
        with log.open(newline="") as file:
            part = list(csv.DictReader(file))
        begin = min((int(row["step"]) for row in part), default=0)
        rows = [row for row in rows if int(row["step"]) < begin] + part
    folder.mkdir(parents=True, exist_ok=True)
    for name, columns in (
        ("loss", ("step", "train_loss")),
        ("validation", ("epoch", "val_loss", "val_CIDEr")),
    ):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(columns)
            kept = (row for row in rows if row.get(columns[-1]))
            table.writerows([row[column] for column in columns] for row in kept)
