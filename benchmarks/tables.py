"""Writes the figures of the pages on speed from what the benchmarks measured last.

`python -m benchmarks.tables` measures nothing. It reads `benchmarks/results`, a folder for each
kind of processor: `decode.json`, `gate.json`, `scaling.json` and `pruning.json` make the tables of
`docs/speed.md`, `serve.json` makes `docs/serving-speed.md`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from benchmarks.decode_report import tables as decode_tables
from benchmarks.decode_report import targets
from benchmarks.machine import KINDS, RESULTS, ROOT
from benchmarks.pruning import pruning_table
from benchmarks.scaling import CLIFF, usual_of
from benchmarks.serve_tables import page as serving_page
from benchmarks.table import Table, put_between_marks
from benchmarks.target import compared
from model.layers.precision import PRECISIONS
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
    kept = compared({kind: targets(each["decode"]) for kind, each in measured.items()})
    parts = [f"## {kept.title}", kept.markdown()]
    for kind, files in measured.items():
        results = files["decode"]
        parts += [
            f"## {kind}: {results['processor']}",
            f"Measured with `{results['command']}`, {results['threads']} threads "
            f"({', '.join(results['instructions'])}), torch {results['torch']}, transformers "
            f"{results['transformers']}, {results['date']}: medians of contestants in turn.",
        ]
        parts += [section(each) for each in decode_tables(results)]
        parts += results["missing"]
        parts.append(f"![Pictures a second](../benchmarks/results/{kind}/decode.png)")
        if gate := files.get("gate"):
            parts.append(section(gate_table(gate)))
        if scaling := files.get("scaling"):
            parts += grown(scaling, kind)
        if pruning := files.get("pruning"):
            parts.append(section(pruning_table(pruning)))
    return "\n\n".join(parts)


def section(table: Table) -> str:
    """A table under its title."""
    return f"### {table.title}\n\n{table.markdown()}"


def gate_table(gate: Mapping[str, Any]) -> Table:
    """What each precision keeps of the default captioner's captions."""
    rows = [
        (
            name,
            f"{own['same']:.1%}",
            f"{own['cider_change']:+.2%}",
            f"{1e3 * own['seconds']:.1f}",
            "passes" if own["passes"] else "does not pass",
        )
        for name, own in gate["precisions"].items()
    ]
    columns = ("default captioner in", "captions as in fp32", "CIDEr", "ms a picture", "its gate")
    note = f"`python -m training.evaluate`, kept by `python -m benchmarks.readme`, {gate['date']}."
    return Table("What may be served", columns, rows, note)


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
        parts += [f"{usual_of(sweep)}:", Table(sweep, (sweep, *names), rows).markdown()]
    cliffs = "; ".join(scaling["cliffs"]) or "none"
    parts.append(f"Sizes that cost over {CLIFF} times their share of the one before: {cliffs}.")
    parts.append(f"`{scaling['command']}`, {scaling['threads']} threads, {scaling['date']}.")
    return parts


def main() -> None:
    """Write the pages."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    measured = read_results()
    decoded = {kind: files for kind, files in measured.items() if "decode" in files}
    if not decoded:
        raise Refusal(f"{RESULTS}/*/decode.json is missing; run python -m benchmarks.decode first")
    put_between_marks(PAGE, BEGIN, tables(decoded), END)
    served = {kind: files["serve"] for kind, files in measured.items() if "serve" in files}
    if served:
        SERVING_PAGE.write_text(serving_page(served))


if __name__ == "__main__":
    command(main)
