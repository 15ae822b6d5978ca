"""The table and the plot of a run."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loadtests.records import Record, Span
from loadtests.samples import Sample

#: Figures of a part of a run -> head of its column.
COLUMNS = {
    "requests": "requests",
    "sent_per_second": "sent/s",
    "requests_per_second": "answered/s",
    "captions_per_second": "status 200/s",
    "median_ms": "median ms",
    "p95_ms": "p95 ms",
    "p99_ms": "p99 ms",
    "refused": "503",
    "refusal_median_ms": "503 median ms",
    "refusal_p99_ms": "503 p99 ms",
    "refusal_slowest_ms": "503 slowest ms",
}
#: Most points of a line.
POINTS = 120


def tables(result: Mapping[str, Any]) -> str:
    """The figures of a run in Markdown.

    Args:
        result: The content of `summary.json`.
    """
    figures = dict(result["figures"])
    parts = {name: figures.pop(name) for name in ("stages", "kinds", "clients")}
    figures.pop("problems")
    limits: dict[str, list[str]] = {}
    for name, limit in result["limits"].items():
        kind, _, figure = name.partition("_")
        limits.setdefault(figure, []).append(
            f"{'at most' if kind == 'max' else 'at least'} {limit:g}"
        )
    lines = [f"# {result['profile']}: {result['about']}", ""]
    lines += ["| figure | measured | limit |", "|---|---:|---|"]
    lines += [
        f"| {name.replace('_', ' ')} | {figures.get(name, 'not measured')} "
        f"| {', '.join(limits.get(name, []))} |"
        for name in [*figures, *(name for name in limits if name not in figures)]
    ]
    for part, rows in parts.items():
        used = {
            key: head for key, head in COLUMNS.items() if any(key in row for row in rows.values())
        }
        lines += ["", f"| {part} | {' | '.join(used.values())} |", f"|---|{'---:|' * len(used)}"]
        lines += [
            f"| {name} | {' | '.join(str(row.get(key, '')) for key in used)} |"
            for name, row in rows.items()
        ]
    return "\n".join(lines) + "\n"


def plot(
    file: Path,
    title: str,
    records: Sequence[Record],
    spans: Sequence[Span],
    samples: Sequence[Sample],
) -> None:
    """Draw requests per second, percentiles, memory and processor time over the time of a run.

    Args:
        file: A PNG file to write.
        title: Of the whole.
        records: Of all requests.
        spans: The stages; a line stands where one begins.
        samples: Of all processes.
    """
    begin, end = spans[0].begin, spans[-1].end
    width = max(1.0, (end - begin) / POINTS)
    starts = np.arange(begin, end - width / 2, width)
    figure = Figure(figsize=(9, 10), layout="constrained", dpi=100)
    axes: Sequence[Axes] = figure.subplots(4, 1, sharex=True)
    figure.suptitle(title)

    def per_second(chosen: Callable[[Record], bool]) -> Any:
        ends = [each.end for each in records if chosen(each)]
        counts, _ = np.histogram(ends, [*starts, starts[-1] + width])
        return counts / width

    for label, chosen in (
        ("status 200", lambda each: each.status == 200),
        ("503, overloaded", lambda each: each.outcome == "refused"),
        ("all", lambda _: True),
    ):
        axes[0].plot(starts - begin, per_second(chosen), label=label)
    axes[0].set_ylabel("replies per second")
    answered = [each for each in records if each.status == 200]
    windows: list[list[float]] = [[] for _ in starts]
    for each in answered:
        place = int((each.end - begin) / width)
        if 0 <= place < len(windows):
            windows[place].append(each.ms)
    full = [place for place, found in enumerate(windows) if found]
    for percent in (50, 95, 99):
        values = [np.percentile(windows[place], percent) for place in full]
        axes[1].plot(starts[full] - begin, values, label=f"p{percent}")
    axes[1].set_ylabel("ms until a caption")
    for index, (unit, label) in enumerate(
        (("mb", "resident memory, MB"), ("cpu", "% of one core")), 2
    ):
        names = sorted({name for each in samples for name in each if name.endswith(f"_{unit}")})
        for name in names:
            found = [(each["seconds"] - begin, each[name]) for each in samples if name in each]
            axes[index].plot(*zip(*found, strict=True), label=name.removesuffix(f"_{unit}"))
        axes[index].set_ylabel(label)
    for each_axes in axes:
        for span in spans[1:]:
            each_axes.axvline(span.begin - begin, color="grey", linewidth=0.8, linestyle=":")
        each_axes.set_ylim(bottom=0)
        each_axes.legend(loc="upper left", fontsize=8)
        each_axes.grid(alpha=0.3)
    axes[-1].set_xlim(0, end - begin)
    when = datetime.datetime.fromtimestamp(begin).strftime("%Y-%m-%d %H:%M:%S")
    axes[-1].set_xlabel(f"seconds since {when}")
    figure.savefig(file, facecolor="white")
