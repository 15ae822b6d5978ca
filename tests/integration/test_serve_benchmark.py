"""The serving benchmark runs, in miniature, and shows what it measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import serve
from benchmarks.clients import arriving
from benchmarks.pages import serve_tables, serving_figures
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
    speed, load = results["speed"], results["load"]
    for name in ("images_per_second", "alone_ms"):
        assert set(speed[name]) == {"model", "REST", "gRPC"}
        assert min(speed[name].values()) > 0
    worker = speed["worker"]
    assert worker["peak_mb"] >= worker["resident_mb"] > worker["weights_mb"] > 0
    assert worker["ready_seconds"] > 0
    assert load["workers_survived"]
    assert [row["failed"] for row in load["loads"]] == [0, 0]
    shown = serve_tables(results)
    assert f"{load['loads'][1]['p99_ms']:.0f} ms" in shown
    assert f"| {worker['weights_mb']:.0f} MB |" in shown
    ratio = speed["images_per_second"]["REST"] / speed["images_per_second"]["model"]
    page = serving_figures({"here": results})
    assert f"| REST: images/s, times the captioner's | {ratio:.2f} |" in page
