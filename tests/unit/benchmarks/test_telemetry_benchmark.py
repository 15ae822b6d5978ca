"""The benchmark of telemetry: what it serves, what it collects, and the table of the page."""

from __future__ import annotations

import json
import time
import zipfile
from pathlib import Path

import pytest
import yaml
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from benchmarks import telemetry
from benchmarks.figures import shown_figures
from gateway.telemetry.tracing import Tracing
from handler import caption_settings


def test_the_archive_of_off_differs_in_its_log_alone(tiny_archive: Path, tmp_path: Path):
    out = telemetry.without_request_log(tiny_archive, tmp_path / "plain.mar")
    with zipfile.ZipFile(tiny_archive) as before, zipfile.ZipFile(out) as after:
        assert before.namelist() == after.namelist()
        different = [name for name in before.namelist() if before.read(name) != after.read(name)]
        assert different == ["model-config.yaml"]
        settings = [
            caption_settings.read(yaml.safe_load(each.read(different[0])))
            for each in (before, after)
        ]
    assert [each.request_log for each in settings] == [True, False]


def test_the_collector_takes_what_the_gateway_sends():
    with telemetry.collector() as (address, received):
        exporter = OTLPSpanExporter(f"{address}/v1/traces")
        tracing = Tracing(SimpleSpanProcessor(exporter))
        for _ in range(2):  # over a kept connection
            before = received()
            with tracing.request("", "mine"):
                pass
            end = time.monotonic() + 20
            while received() == before:
                assert time.monotonic() < end
                time.sleep(0.01)
        tracing.close()


def test_the_page_has_the_kept_results():
    files = sorted(telemetry.results_folder().parent.glob("*/telemetry.json"))
    assert files
    block = shown_figures(telemetry.PAGE, "benchmarks.telemetry")
    assert block in [telemetry.telemetry_table(json.loads(file.read_text())) for file in files]


def test_variables_are_for_the_block_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GATEWAY_JSON_LOG", "false")
    with telemetry.environment(GATEWAY_JSON_LOG="true", CLIPCAP_NEW="1"):
        assert telemetry.os.environ["CLIPCAP_NEW"] == "1"
    assert telemetry.os.environ["GATEWAY_JSON_LOG"] == "false"
    assert "CLIPCAP_NEW" not in telemetry.os.environ
