"""Writes what README shows: a picture with captions, and the table of measured figures.

`python -m benchmarks.readme` reads what the pipeline (`reports/metrics.json`, `captions.jsonl`)
and `make loadtest` (`reports/loadtest/summary.json`) measured last, on this machine and today.
It keeps the figures in `benchmarks/results/scenes.json`, writes README's table and
`docs/scenes.png` from them, and puts what the precisions' gates said into
`benchmarks/results/KIND/gate.json` of this kind of processor, for `benchmarks.tables`.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

from benchmarks.machine import ROOT, machine, results_folder
from benchmarks.table import put_between_marks
from training.command import command

RESULTS = ROOT / "benchmarks" / "results" / "scenes.json"
BEGIN, END = "<!-- figures: python -m benchmarks.readme -->", "<!-- /figures -->"
#: Pictures shown, and how many of the test split are passed over between two.
SHOWN, STRIDE = 4, 37


def measured() -> dict[str, Any]:
    """The figures of the last runs, with where and when."""
    metrics = json.loads((ROOT / "reports" / "metrics.json").read_text())
    load = json.loads((ROOT / "reports" / "loadtest" / "summary.json").read_text())
    return {
        **machine("benchmarks.readme"),
        "splits": {name: metrics[name] for name in ("test", "compositional")},
        "load": {**load["figures"], "users": load["limits"]["users"]},
        "archive_mb": round((ROOT / "model_store" / "clipcap.mar").stat().st_size / 1e6, 1),
    }


def gate() -> dict[str, Any]:
    """The last evaluation's gates, by precision (see `training.evaluation.precision_gate`)."""
    metrics = json.loads((ROOT / "reports" / "metrics.json").read_text())
    return {**machine("benchmarks.readme"), "precisions": metrics.get("precisions", {})}


def table(figures: dict[str, Any]) -> str:
    """README's table."""
    test, new = figures["splits"]["test"], figures["splits"]["compositional"]
    load = figures["load"]
    rows = [
        ("CIDEr", f"{test['CIDEr']:.2f}", f"{new['CIDEr']:.2f}"),
        ("… of one human caption against the other four", *_pair(test, new, "human_CIDEr")),
        ("… of ours against four captions", *_pair(test, new, "CIDEr_fewer_references")),
        ("BLEU-4", *_pair(test, new, "BLEU_4")),
        ("METEOR", *_pair(test, new, "METEOR")),
        ("things and colours stated that are in the picture", *_share(test, new, "precision")),
        ("things and colours in the picture that are stated", *_share(test, new, "recall")),
        ("captions with nothing false in them", *_share(test, new, "faultless")),
    ]
    lines = ["| default captioner | test | unseen combinations |", "|---|---|---|"]
    lines += [f"| {name} | {first} | {second} |" for name, first, second in rows]
    lines += [
        "",
        f"Served under load ({load['users']} clients, REST and bad requests mixed in): "
        f"{load['requests_per_second']:.0f} requests/s, median {load['median_ms']:.0f} ms, "
        f"p95 {load['p95_ms']:.0f} ms, {load['wrong_replies']} wrong replies. "
        f"Archive: {figures['archive_mb']} MB.",
        "",
        f"Measured with `make train && make loadtest` on {figures['cores']} cores, "
        f"{figures['processor']}, {figures['date']}; kept in `benchmarks/results/scenes.json`.",
    ]
    return "\n".join(lines)


def draw_sample(file: Path) -> None:
    """Test pictures with the captions that the captioner gave them."""
    lines = (ROOT / "reports" / "captions.jsonl").read_text().splitlines()
    captions = [row for row in map(json.loads, lines) if row["split"] == "test"]
    chosen = captions[STRIDE :: STRIDE * 2][:SHOWN]
    coco = json.loads((ROOT / "data" / "scenes" / "captions.json").read_text())
    names = {image["id"]: image["file_name"] for image in coco["images"]}
    figure = Figure(figsize=(3.1 * SHOWN, 3.6), layout="constrained", dpi=110)
    for axes, row in zip(figure.subplots(1, SHOWN), chosen, strict=True):
        picture = Image.open(ROOT / "data" / "scenes" / "images" / names[row["image_id"]])
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        axes.imshow(picture.convert("RGB").crop((left, top, left + side, top + side)))
        axes.set_xlabel(textwrap.fill(row["caption"], 38), fontsize=10, linespacing=1.4)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    file.parent.mkdir(exist_ok=True)
    figure.savefig(file, facecolor="white")


def _pair(test: dict[str, float], new: dict[str, float], name: str) -> tuple[str, str]:
    return f"{test[name]:.2f}", f"{new[name]:.2f}"


def _share(test: dict[str, float], new: dict[str, float], name: str) -> tuple[str, str]:
    return f"{test[name]:.1%}", f"{new[name]:.1%}"


def main() -> None:
    """Measure nothing, write everything."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    figures = measured()
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(figures, indent=2) + "\n")
    results_folder().mkdir(parents=True, exist_ok=True)
    (results_folder() / "gate.json").write_text(json.dumps(gate(), indent=1) + "\n")
    put_between_marks(ROOT / "README.md", BEGIN, table(figures), END)
    draw_sample(ROOT / "docs" / "scenes.png")


if __name__ == "__main__":
    command(main)
