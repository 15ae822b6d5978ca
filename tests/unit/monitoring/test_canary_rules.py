"""Alerts of golden requests and of trials: promtool runs their tests; the page explains each."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
import yaml

from tests import ROOT

NAMES = ("golden", "canary")
ALERTS = {
    rule["alert"]: rule
    for name in NAMES
    for group in yaml.safe_load(
        (ROOT / "monitoring" / "prometheus" / "rules" / f"{name}.yml").read_text()
    )["groups"]
    for rule in group["rules"]
    if "alert" in rule
}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="apt-get install prometheus")
@pytest.mark.parametrize("name", NAMES)
def test_each_alert_fires_for_its_fault_and_not_on_a_calm_day(name: str):
    for words in (
        ["check", "rules", f"monitoring/prometheus/rules/{name}.yml"],
        ["test", "rules", f"tests/rules/{name}.yml"],
    ):
        done = subprocess.run(
            ["promtool", *words], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_its_section():
    sections = re.findall(r"^## (Clipcap.*)", (ROOT / "docs" / "canary.md").read_text(), re.M)
    assert sorted(sections) == sorted(ALERTS)
    for name, rule in ALERTS.items():
        assert rule["annotations"]["runbook_url"].endswith(f"#{name.lower()}")
        assert "$value" in rule["annotations"]["description"]
