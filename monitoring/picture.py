"""Draws the dashboard without Grafana, from a Prometheus: `python -m monitoring.picture`.

    python -m monitoring.picture --prometheus http://127.0.0.1:9090 --minutes 30 --out picture.png

It asks Prometheus for the queries of each panel (`panels.py`), as Grafana does, and draws their
lines with the red line of the alert. The single figures of the first row stand above them. A panel
without data says so.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.dates import DateFormatter
from matplotlib.figure import Figure

from model.refusal import Refusal
from monitoring.panels import RATE, ROWS, Panel, Query

#: Points of a line.
POINTS = 240
#: Panels side by side.
COLUMNS = 3
#: Lines of a query of which all are drawn; of more only those that are not always 0.
MANY = 6
#: Size of a panel in inches.
WIDTH, HEIGHT = 4.6, 2.5
#: Unit of a panel -> how its values are written.
FORMATS = {"percentunit": "{:.1%}", "s": "{:.2f} s", "bytes": "{:.3g}", "reqps": "{:.3g}"}
#: Moments, and the value at each; a moment without a value is left out.
Line = tuple[Sequence[datetime.datetime], Sequence[float]]


class Prometheus:
    """Asks a Prometheus.

    Args:
        address: `http://HOST:PORT`.
        end: The newest moment, in seconds since 1970.
        seconds: How much time before that.
    """

    def __init__(self, address: str, end: float, seconds: float) -> None:
        self._address = address.rstrip("/")
        self._end, self._seconds = end, seconds

    def lines(self, query: Query, rate: str) -> dict[str, Line]:
        """The name and the points of each line of a query.

        Args:
            query: What is asked.
            rate: Takes the place of Grafana's `$__rate_interval`.

        Raises:
            Refusal: Prometheus does not answer, or not with data.
        """
        words = {
            "query": query.expr.replace(RATE, rate),
            "start": f"{self._end - self._seconds:.3f}",
            "end": f"{self._end:.3f}",
            "step": f"{max(1.0, self._seconds / POINTS):.3f}",
        }
        url = f"{self._address}/api/v1/query_range?{urllib.parse.urlencode(words)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as reply:
                found = json.load(reply)["data"]["result"]
        except (OSError, ValueError, LookupError) as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            raise Refusal(f"{self._address} does not answer as a Prometheus: {error}") from None
        return {_name(query.legend, each["metric"]): _points(each["values"]) for each in found}


def _name(legend: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"{{(\w+)}}", lambda found: labels.get(found[1], ""), legend)


def _points(values: Sequence[Sequence[Any]]) -> Line:
    kept = [(moment, float(text)) for moment, text in values if math.isfinite(float(text))]
    moments = [datetime.datetime.fromtimestamp(moment, datetime.UTC) for moment, _ in kept]
    return moments, [value for _, value in kept]


def draw(prometheus: Prometheus, rows: Sequence[str], rate: str) -> Figure:
    """The panels of some rows of the dashboard.

    Args:
        prometheus: Has the data.
        rows: Titles of rows; figures are printed above the graphs.
        rate: See `Prometheus.lines`.
    """
    panels = [panel for title in rows for panel in ROWS[title]]
    graphs = [panel for panel in panels if not panel.figure]
    lines = -(-len(graphs) // COLUMNS)
    figure = Figure(figsize=(COLUMNS * WIDTH, lines * HEIGHT + 1.0), layout="constrained")
    axes = figure.subplots(lines, COLUMNS, squeeze=False).flatten().tolist()
    for panel, axis in zip(graphs, axes, strict=False):
        _draw(axis, panel, [prometheus.lines(query, rate) for query in panel.queries])
    for axis in axes[len(graphs) :]:
        axis.set_axis_off()
    texts = []
    for panel in panels:
        if panel.figure:
            for _, values in prometheus.lines(panel.queries[0], rate).values():
                form = FORMATS.get(panel.unit, "{:.3g}")
                texts.append(f"{panel.title}: {form.format(values[-1])}" if values else "")
    figure.suptitle("    ".join(text for text in texts if text), fontsize=11)
    return figure


def _draw(axis: Axes, panel: Panel, queries: Sequence[Mapping[str, Line]]) -> None:
    """One panel."""
    axis.set_title(panel.title, fontsize=10, loc="left")
    drawn = 0
    for found in queries:
        for name, (moments, values) in sorted(found.items()):
            if values and (len(found) <= MANY or any(values)):
                axis.plot(moments, values, label=name or "other", linewidth=1.2)  # type: ignore[arg-type]
                drawn += 1
    if not drawn:
        axis.text(0.5, 0.5, "no data", ha="center", transform=axis.transAxes)
        return
    if panel.limit is not None:
        axis.axhline(panel.limit, color="red", linewidth=0.8, linestyle="--")
    axis.set_ylim(bottom=0)
    axis.xaxis.set_major_formatter(DateFormatter("%H:%M"))  # type: ignore[no-untyped-call]
    axis.tick_params(labelsize=7)
    if panel.unit == "percentunit":
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    elif panel.unit == "bytes":
        axis.yaxis.set_major_formatter(lambda value, _: f"{value / 2**20:.0f} MiB")
    elif panel.unit == "s":
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:g} s")
    axis.legend(fontsize=6, loc="upper left", ncols=2)
    axis.grid(alpha=0.3)


def main() -> int:
    """Draw; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m monitoring.picture",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", metavar="ADDRESS")
    parser.add_argument("--minutes", type=float, default=60.0, help="how much time is drawn")
    parser.add_argument("--rate", default="1m", help="time over which rates are taken")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=[*ROWS], metavar="TITLE")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="PNG or SVG file")
    given = parser.parse_args()
    try:
        if not 0 < given.minutes < 1e6:
            raise Refusal(f"--minutes is {given.minutes:g}; it must be a number above 0")
        source = Prometheus(given.prometheus, time.time(), 60 * given.minutes)
        draw(source, given.rows, given.rate).savefig(given.out, dpi=90)
    except (Refusal, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
