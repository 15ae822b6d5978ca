"""The dashboard's file is what the code writes, and its panels are ones that Grafana can show."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

from monitoring import dashboard
from monitoring.panels import ROWS
from tests import ROOT


def test_the_committed_file_is_what_the_code_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "clipcap.json"
    monkeypatch.setattr(sys, "argv", ["dashboard", "--out", str(out)])
    dashboard.main()
    assert out.read_text() == dashboard.OUT.read_text(), "run python -m monitoring.dashboard"


def test_panels_lie_side_by_side_and_read_from_the_provisioned_source():
    found = json.loads(dashboard.OUT.read_text())
    sources = yaml.safe_load(
        (ROOT / "monitoring" / "grafana" / "datasources" / "prometheus.yaml").read_text()
    )
    panels = [panel for panel in found["panels"] if panel["type"] != "row"]
    assert len(panels) == sum(map(len, ROWS.values()))
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["datasource"]["uid"] == sources["datasources"][0]["uid"]
        assert panel["title"]
        assert panel["description"]
        assert panel["targets"]
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_page_says_what_each_panel_shows_and_when_each_alert_fires():
    page = (ROOT / "docs" / "monitoring.md").read_text()
    for panels in ROWS.values():
        for panel in panels:
            assert f"| {panel.title} | {panel.about} |" in page, panel.title
    for name in ("serving", "drift"):
        rules = yaml.safe_load(
            (ROOT / "monitoring" / "prometheus" / "rules" / f"{name}.yml").read_text()
        )
        for group in rules["groups"]:
            for rule in group["rules"]:
                if alert := rule.get("alert"):
                    row = f"| [{alert}](runbook.md#{alert.lower()}) |"
                    assert row in page
                    (line,) = [each for each in page.splitlines() if each.startswith(row)]
                    assert line.endswith(f"| {rule['labels']['severity']} |")
