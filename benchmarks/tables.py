"""Writes the figures of the pages on speed from what the benchmarks measured last.

`python -m benchmarks.tables` measures nothing. It reads `benchmarks/results`, a folder for each
kind of processor: `decode.json`, `scaling.json` and `pruning.json` make the tables of
`docs/speed.md`, `serve.json` makes `docs/serving-speed.md`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from benchmarks.decode_report import TABLES, targets
from benchmarks.machine import KINDS, RESULTS, ROOT
from benchmarks.scaling import CLIFF, usual_of
from benchmarks.serve_tables import page as serving_page
from benchmarks.target import compared, markdown
from model.linear import PRECISIONS
from model.refusal import Refusal
from training.command import command

PAGE = ROOT / "docs" / "speed.md"
SERVING_PAGE = ROOT / "docs" / "serving-speed.md"
BEGIN, END = "<!-- figures: python -m benchmarks.tables -->", "<!-- /figures -->"
#: Kind of processor -> name of a file of results -> what it holds.
Results = Mapping[str, Mapping[str, Any]]


def read_results() -> Results:
    """What is kept of every kind of processor, the fastest first."""
    known = [*KINDS, *sorted({each.name for each in RESULTS.iterdir() if each.is_dir()} - {*KINDS})]
    found = {
        kind: {file.stem: json.loads(file.read_text()) for file in (RESULTS / kind).glob("*.json")}
        for kind in known
    }
    return {kind: files for kind, files in found.items() if files}


def tables(measured: Results) -> str:
    """All that stands between the marks."""
    parts = ["## Targets", compared({k: targets(each["decode"]) for k, each in measured.items()})]
    for kind, files in measured.items():
        results = files["decode"]
        parts += [
            f"## {kind}: {results['processor']}",
            f"Measured with `{results['command']}`, {results['threads']} threads "
            f"({', '.join(results['instructions'])}), torch {results['torch']}, transformers "
            f"{results['transformers']}, {results['date']}: medians of contestants in turn.",
        ]
        for title, columns, rows in TABLES:
            parts += [f"### {title}", markdown(columns, rows(results))]
        parts += results["missing"]
        if scaling := files.get("scaling"):
            parts += grown(scaling, kind)
        if pruning := files.get("pruning"):
            parts += left_out(pruning)
    return "\n\n".join(parts)


def grown(scaling: Mapping[str, Any], kind: str) -> list[str]:
    """How the artifact's time grows, a table for each of what it grows with."""
    picture = f"../benchmarks/results/{kind}/scaling.png"
    parts = ["### How time grows", f"![Seconds against sizes]({picture})"]
    for sweep, values in scaling["sweeps"].items():
        names = [name for name in PRECISIONS if name in values]
        rows = [
            (str(size), *(f"{1e3 * values[name][place]:.0f} ms" for name in names))
            for place, size in enumerate(values["sizes"])
        ]
        parts += [f"{usual_of(sweep)}:", markdown((sweep, *names), rows)]
    cliffs = "; ".join(scaling["cliffs"]) or "none"
    parts.append(f"Sizes that cost over {CLIFF} times their share of the one before: {cliffs}.")
    parts.append(f"`{scaling['command']}`, {scaling['threads']} threads, {scaling['date']}.")
    return parts


def left_out(pruning: Mapping[str, Any]) -> list[str]:
    """What leaving parts of GPT-2 out brings and costs."""
    seconds, scores = pruning["seconds"], pruning["CIDEr"]
    rows = [
        (
            what,
            f"{1e3 * value:.0f}",
            f"{value / seconds['nothing']:.0%}",
            f"{scores[what]:.2f}" if what in scores else "",
        )
        for what, value in seconds.items()
    ]
    columns = ("left out of GPT-2", "ms", "of the time", "CIDEr")
    where = (
        f"`{pruning['command']}`, {pruning['threads']} threads, {pruning['date']}. Times: "
        f"8 pictures, 5 beams, 20 tokens, {pruning['precision']}, real size, random weights. "
        "CIDEr: the default captioner on the test split, without those of its feed-forward neurons "
        "that weigh least, and not trained on."
    )
    return ["### Pruning", markdown(columns, rows), where]


def between_marks(text: str, new: str) -> str:
    """The page with this between its marks.

    Raises:
        Refusal: It has none.
    """
    if BEGIN not in text or END not in text:
        raise Refusal(f"{PAGE} lacks the marks {BEGIN} and {END}; put them where the tables go")
    return f"{text.partition(BEGIN)[0]}{BEGIN}\n{new}\n{END}{text.partition(END)[2]}"


def main() -> None:
    """Write the pages."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    measured = read_results()
    decoded = {kind: files for kind, files in measured.items() if "decode" in files}
    if not decoded:
        raise Refusal(f"{RESULTS}/*/decode.json is missing; run python -m benchmarks.decode first")
    PAGE.write_text(between_marks(PAGE.read_text(), tables(decoded)))
    served = {kind: files["serve"] for kind, files in measured.items() if "serve" in files}
    if served:
        SERVING_PAGE.write_text(serving_page(served))


if __name__ == "__main__":
    command(main)
