"""The Grafana dashboard, as code: `python -m monitoring.dashboard` writes its JSON.

    python -m monitoring.dashboard [--out monitoring/grafana/dashboards/clipcap.json]

`panels.py` says what each panel shows. A test compares the committed file with what this writes,
and another one asks a Prometheus that scrapes a real captioner for every query.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from grafana_foundation_sdk.builders import common, stat, timeseries
from grafana_foundation_sdk.builders import dashboard as grafana
from grafana_foundation_sdk.builders import prometheus as queries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import GraphTresholdsStyleMode
from grafana_foundation_sdk.models.dashboard import DataSourceRef, Threshold, ThresholdsMode

from monitoring.panels import ROWS, Panel

OUT = Path(__file__).resolve().parent / "grafana" / "dashboards" / "clipcap.json"
#: The data source of `grafana/datasources/prometheus.yaml`.
SOURCE = DataSourceRef(type_val="prometheus", uid="prometheus")
#: Width of the dashboard, and height of a graph, in Grafana's units.
WIDTH, HEIGHT = 24, 8
#: Height of a row of figures.
LOW = 4


def dashboard() -> grafana.Dashboard:
    """The dashboard."""
    found = (
        grafana.Dashboard("Captioner")
        .uid("clipcap")
        .tags(["clipcap"])
        .description("Written by python -m monitoring.dashboard; changes here are lost.")
        .readonly()
        .refresh("30s")
        .time("now-6h", "now")
        .timezone("browser")
    )
    for title, panels in ROWS.items():
        found.with_row(grafana.Row(title))
        for index, panel in enumerate(panels):
            built = _figure(panel, panels) if panel.figure else _graph(panel, index, panels)
            found.with_panel(built)
    return found


def _figure(panel: Panel, beside: Sequence[Panel]) -> stat.Panel:
    """A single figure, green or red; all of a row stand side by side."""
    colours = ("red", "green") if panel.low_is_bad else ("green", "red")
    steps = [Threshold(None, colours[0]), Threshold(panel.limit, colours[1])]
    if panel.limit is None:
        steps = [Threshold(None, "text")]
    built = stat.Panel().height(LOW).span(WIDTH // len(beside)).thresholds(_thresholds(steps))
    _fill(built, panel)
    return built


def _graph(panel: Panel, index: int, beside: Sequence[Panel]) -> timeseries.Panel:
    """Lines over time, up to three panels side by side."""
    line = len(beside) - index // 3 * 3  # panels from this line on
    built = (
        timeseries.Panel()
        .height(HEIGHT)
        .span(WIDTH // min(3, max(line, 1)))
        .min(0)
        .legend(common.VizLegendOptions().show_legend(True))
    )
    if panel.limit is not None:
        steps = [Threshold(None, "transparent"), Threshold(panel.limit, "red")]
        built.thresholds(_thresholds(steps)).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(GraphTresholdsStyleMode.LINE)
        )
    _fill(built, panel)
    return built


def _fill(built: stat.Panel | timeseries.Panel, panel: Panel) -> None:
    built.title(panel.title).description(panel.about).datasource(SOURCE).unit(panel.unit)
    for number, query in enumerate(panel.queries):
        built.with_target(
            queries.Dataquery()
            .expr(query.expr)
            .legend_format(query.legend)
            .ref_id(chr(ord("A") + number))
            .range()
        )


def _thresholds(steps: list[Threshold]) -> grafana.ThresholdsConfig:
    return grafana.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def to_json() -> str:
    """The dashboard as Grafana reads it."""
    return json.dumps(dashboard().build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def main() -> None:
    """Write the dashboard."""
    parser = argparse.ArgumentParser(
        prog="python -m monitoring.dashboard",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=OUT, metavar="FILE")
    out = parser.parse_args().out
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(to_json())
    print(f"{out}: {sum(map(len, ROWS.values()))} panels")


if __name__ == "__main__":
    main()
