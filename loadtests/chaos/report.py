"""The outcome of the cases: a table on the terminal, Markdown, JSON, latency over time, a page."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.machine import cores, processor
from deploy.errors import ServeError
from loadtests.chaos.case import Case, Outcome
from loadtests.chaos.clients import ANSWERED, REFUSED
from loadtests.chaos.stage import Stage
from training.evaluation.report.marked_block import replaced_block

#: Outcome of a request -> colour and name in the plot.
COLOURS = {ANSWERED: ("tab:blue", "captioned"), REFUSED: ("tab:orange", "not accepted")}
LOST = ("tab:red", "no caption")
#: The marks of the table in a page, and its columns; a page leaves out the first.
BEGIN, END = "<!-- faults: python -m loadtests.chaos --docs -->", "<!-- /faults -->"
TITLES = ("case", "what is done", "expected", "seen", "requests", "lost", "slowest", "result")


def print_cases(console: Console, cases: Sequence[Case]) -> None:
    """Show what there is to run."""
    table = Table("case", "what is done", "expected")
    for case in cases:
        table.add_row(case.name, case.fault, case.expected)
    console.print(table)


def print_outcomes(console: Console, outcomes: Sequence[Outcome]) -> None:
    """Show what became of the cases; on a narrow terminal the texts need the most room."""
    table = Table("case", "done, expected, seen", "requests", "lost", "slowest", show_lines=True)
    colours = {"passed": "green", "failed": "red", "skipped": "yellow"}
    for outcome in outcomes:
        cells = {title: escape(text) for title, text in row(outcome).items()}
        result = f"[{colours[outcome.result]}]{outcome.result}[/]"
        story = [cells[title] for title in ("what is done", "expected", "seen")]
        figures = [cells[title] for title in ("requests", "lost", "slowest")]
        table.add_row(f"{cells['case']}\n{result}", "\n".join(story), *figures)
    console.print(table)


def row(outcome: Outcome) -> dict[str, str]:
    """The cells of an outcome, under the titles of their columns."""
    sent = outcome.requests > 0
    return {
        "case": outcome.case.name,
        "what is done": outcome.case.fault,
        "expected": outcome.case.expected,
        "seen": outcome.seen,
        "requests": str(outcome.requests) if sent else "",
        "lost": str(outcome.lost) if sent else "",
        "slowest": f"{outcome.slowest:.1f} s" if sent else "",
        "result": outcome.result,
    }


def markdown(rows: Sequence[Mapping[str, Any]], titles: Sequence[str]) -> str:
    """Some columns of rows as a table in Markdown."""
    lines = [titles, ["---"] * len(titles), *([each[title] for title in titles] for each in rows)]
    cells = ([cell.replace("|", r"\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def write(out: Path, outcomes: Sequence[Outcome]) -> None:
    """Write `chaos.json` and `chaos.md`; cases of an earlier run that did not run now stay there.

    Args:
        out: Folder for them.
        outcomes: Of the cases that ran.
    """
    file = out / "chaos.json"
    kept = json.loads(file.read_text())["cases"] if file.is_file() else []
    rows = {each["case"]: each for each in kept}
    rows |= {each.case.name: {**row(each), "seconds": round(each.seconds, 1)} for each in outcomes}
    found: dict[str, Any] = {
        "cores": cores(),
        "processor": processor(),
        "date": datetime.date.today().isoformat(),
        "passed": all(each["result"] != "failed" for each in rows.values()),
        "cases": list(rows.values()),
    }
    file.write_text(json.dumps(found, indent=2) + "\n")
    (out / "chaos.md").write_text(markdown(found["cases"], TITLES) + "\n")


def write_plot(file: Path, outcomes: Sequence[Outcome], stages: Sequence[Stage]) -> None:
    """Draw the requests of all cases that sent any.

    Args:
        file: A PNG.
        outcomes: Of the cases.
        stages: Where they ran.
    """
    pairs = zip(outcomes, stages, strict=True)
    sent = [(o, s) for o, s in pairs if s.clients is not None and s.clients.samples]
    if sent:
        _plot(sent).savefig(file, facecolor="white")


def write_page(page: Path, kept: Path) -> None:
    """Put the table of a run between the marks of a page.

    Args:
        page: In Markdown.
        kept: `chaos.json` of the run.

    Raises:
        ServeError: There was no run of all cases, or the page lacks the marks.
    """
    if not kept.is_file():
        raise ServeError(f"{kept} does not exist; make it: make chaos")
    found = json.loads(kept.read_text())
    minutes = sum(each["seconds"] for each in found["cases"]) / 60
    where = f"{found['cores']} cores, {found['processor']}, {found['date']}"
    text = f"Seen with `make chaos` in {minutes:.0f} minutes, {where}.\n\n"
    new = replaced_block(page.read_text(), BEGIN, text + markdown(found["cases"], TITLES[1:]), END)
    if new is None:
        raise ServeError(f"{page} lacks the marks {BEGIN} and {END}; put them where the table goes")
    page.write_text(new)


def _plot(sent: Sequence[tuple[Outcome, Stage]]) -> Figure:
    """Seconds of every request over the time when it was sent, one panel for each case."""
    figure = Figure(figsize=(11, 2.2 * len(sent)), layout="constrained", dpi=90)
    panels = figure.subplots(len(sent), 1, squeeze=False)[:, 0]
    for axes, (outcome, stage) in zip(panels, sent, strict=True):
        assert stage.clients is not None
        samples = stage.clients.samples
        begin = min(sample.begin for sample in samples)
        for colour, name in [*COLOURS.values(), LOST]:
            chosen = [s for s in samples if COLOURS.get(s.outcome, LOST)[0] == colour]
            x, y = [s.begin - begin for s in chosen], [s.seconds for s in chosen]
            axes.scatter(x, y, s=6, color=colour, label=name if chosen else None)
        for when, what in stage.marks:
            axes.axvline(when - begin, color="grey", linewidth=0.8)
            axes.text(when - begin, 0.98, f" {what}", transform=axes.get_xaxis_transform(),
                      rotation=90, va="top", fontsize=7, color="dimgrey")  # fmt: skip
        axes.set_title(f"{outcome.case.name}: {outcome.case.fault}", fontsize=9, loc="left")
        axes.set_ylabel("seconds")
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=7, loc="upper right")
    panels[-1].set_xlabel("seconds since the clients began")
    return figure
