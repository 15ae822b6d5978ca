"""The serving benchmark runs, in miniature, and shows what it measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import serve
from benchmarks.serve_setup import arriving
from benchmarks.serving_page import serve_tables, serving_figures
from deploy.torchserve import TorchServe
from tests.pictures import sound


def test_every_request_of_a_flood_is_counted(server: TorchServe):
    flood = arriving(server.rest, [sound()["jpeg"]], rate=2000.0, seconds=0.3, seed=1)
    counted = flood["captioned"] + flood["overloaded"] + flood["failed"]
    assert counted == flood["sent"] == 600
    # Nothing is sent twice here, so a kept connection that the server closes just then counts.
    assert set(flood["failures"]) <= {"connection_lost"}, flood["failures"]
    assert flood["captioned"] >= 64  # as many may wait
    assert flood["p99_ms"] >= flood["p50_ms"] > 0


def test_a_quick_run_measures_and_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    words = ["benchmarks.serve", "--quick", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    serve.main()
    results = json.loads((tmp_path / "serve.json").read_text())
    speed, load = (results[name]["measured"] for name in ("speed", "load"))
    assert set(speed["share"]) == {"handler", "model", "REST", "gRPC"}
    assert speed["share"]["handler"] == 1
    assert set(speed["alone_ms"]) == {"handler", "model", "REST", "gRPC"}
    assert set(speed["mixed_ms"]) == {"greedy", "beams", "together"}
    worker = speed["worker"]
    assert worker["peak_mb"] >= worker["resident_mb"] > worker["weights_mb"] > 0
    assert worker["ready_seconds"] > 0
    assert load["workers_survived"]
    assert [row["failed"] for row in load["loads"]] == [0, 0]
    shown = {part: table.markdown() for part, table in serve_tables(results)}
    assert f"{load['loads'][1]['p99_ms']:.0f} ms" in shown["load"]
    assert f"| {worker['weights_mb']:.0f} MB |" in shown["speed"]
    assert "| failures from 25% to 150% of capacity | 0 |" in serving_figures({"here": results})
