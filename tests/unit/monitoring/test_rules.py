"""Rules of Prometheus: each alert is tested, explained, and has its section in the runbook."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.app import create_app
from gateway.captioning.torchserve import TorchServeClient
from gateway.measures import Measures
from gateway.settings import Settings
from tests import ROOT

RULES = sorted((ROOT / "monitoring" / "prometheus" / "rules").glob("*.yml"))
TESTS = ROOT / "tests" / "rules"
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()


def rules_of(file: Path) -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for file in RULES for rule in rules_of(file) if "alert" in rule}


def promtool(*words: str | Path) -> None:
    if (found := shutil.which("promtool")) is None:
        pytest.skip("promtool is missing: apt-get install prometheus")
    done = subprocess.run([found, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", RULES, ids=lambda file: file.stem)
def test_rules_do_what_their_tests_say(file: Path):
    promtool("check", "rules", file)
    promtool("test", "rules", TESTS / file.name)


@pytest.mark.parametrize("file", RULES, ids=lambda file: file.stem)
def test_every_alert_is_seen_to_fire_and_not_to_fire(file: Path):
    cases = yaml.safe_load((TESTS / file.name).read_text())["tests"]
    fired = {
        each["alertname"]
        for case in cases
        for each in case.get("alert_rule_test", [])
        if each.get("exp_alerts")
    }
    calm = [
        each
        for case in cases
        for each in case.get("promql_expr_test", [])
        if each["expr"].startswith("count_over_time(ALERTS") and not each["exp_samples"]
    ]
    assert fired == {rule["alert"] for rule in rules_of(file) if "alert" in rule}
    assert calm


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_it_means_and_what_to_do(name: str):
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert re.fullmatch(r"\d+[mh]", rule["for"])
    notes = rule["annotations"]
    assert notes.keys() == {"summary", "description", "runbook_url"}
    assert "$value" in notes["description"]
    assert "{{" not in notes["summary"]
    assert notes["runbook_url"] == f"docs/runbook.md#{name.lower()}"


def test_the_runbook_has_a_section_for_each_alert_and_for_nothing_else():
    assert sorted(re.findall(r"^## (.*)", RUNBOOK, re.MULTILINE)) == sorted(ALERTS)


def test_figures_are_of_the_routes_that_carry_pictures():
    settings = Settings()
    app = create_app(settings, TorchServeClient(settings), Measures())
    paths = {
        (path, method.upper())
        for path, methods in openapi(app).items()
        for method in methods
        if method in ("get", "post", "put")
    }
    # Feedback is about a picture and carries none.
    carrying = {path for path, method in paths if method != "GET" and "feedback" not in path}
    assert len(carrying) > 10
    (serving,) = [file for file in RULES if file.stem == "serving"]
    selections = set(re.findall(r'route=~"(?:other\|)?([^"]*)"', serving.read_text()))
    (selection,) = selections
    for path, _ in paths:
        assert bool(re.fullmatch(selection, path)) == (path in carrying), path


def openapi(app: Any) -> dict[str, dict[str, Any]]:
    """The routes that the gateway documents: path -> its methods."""
    while not hasattr(app, "openapi"):
        app = app._app
    paths: dict[str, dict[str, Any]] = app.openapi()["paths"]
    return paths
