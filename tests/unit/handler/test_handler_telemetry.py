"""What the handler tells of each request: a line in the log, and spans."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from ts.context import Context, RequestProcessor

from handler import caption_handler, caption_settings
from handler.caption_handler import CaptionHandler
from handler.telemetry import request_log, tracing
from model.refusal import Refusal
from tests import ROOT
from tests.pictures import sound
from tests.unit.handler.test_handler import SHIPPED, config_with, context_of

PNG = sound()["png"]
TRACES = ("0af7651916cd43dd8448eb211c80319c", "1bf7651916cd43dd8448eb211c80319d")


@pytest.fixture(scope="module")
def captioner(tiny_artifact: Path) -> CaptionHandler:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(caption_handler, "_check_origin", lambda _: None)
        handler = CaptionHandler()
        handler.initialize(context_of(tiny_artifact))
    return handler


def batch(
    captioner: CaptionHandler, rows: list[dict[str, Any]], headers: list[dict[str, str]]
) -> Context:
    """The context of a batch that was answered."""
    context = context_of(ROOT)
    context.request_processor = [RequestProcessor(each) for each in headers]
    context.request_ids = {index: f"own-{index}" for index in range(len(rows))}
    captioner.handle(rows, context)
    return context


def test_each_request_of_a_batch_has_its_line(
    captioner: CaptionHandler, caplog: pytest.LogCaptureFixture
):
    several = json.dumps({"images": ["AAAA", "!"]}).encode()
    rows: list[dict[str, Any]] = [{"body": PNG}, {"body": b"no picture"}, {"body": several}]
    headers = [
        {"X-Request-Id": "first"},
        {"x-request-id": "a\nforged line"},
        {"traceparent": f"00-{TRACES[0]}-00f067aa0ba902b7-01"},
    ]
    with caplog.at_level(logging.INFO, request_log.logger.name):
        batch(captioner, rows, headers)
    texts = [each.message for each in caplog.records if each.name == request_log.logger.name]
    assert all("\n" not in text for text in texts)
    first, second, third = lines = [json.loads(text) for text in texts]
    assert [each["id"] for each in lines] == ["first", "own-1", "own-2"]
    assert [each["status"] for each in lines] == [200, 400, 400]
    assert [each["code"] for each in lines] == [None, "image_undecodable", "image_undecodable"]
    assert first["pictures"] == 1
    assert third["codes"] == {"image_undecodable": 1, "bad_base64": 1}
    assert third["trace"] == TRACES[0]
    assert "trace" not in first
    assert first["seconds"].keys() == {"decode", "encode", "generate"}
    assert {each["batch"]["requests"] for each in lines} == {3}
    assert second["seconds"] == first["seconds"]  # of the whole batch


def test_the_log_of_requests_can_be_off(tiny_artifact: Path, caplog: pytest.LogCaptureFixture):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(caption_handler, "_check_origin", lambda _: None)
        quiet = CaptionHandler()
        quiet.initialize(context_of(tiny_artifact, config_with(request_log=False)))
    with caplog.at_level(logging.INFO):
        batch(quiet, [{"body": PNG}], [{}])
    assert not [each for each in caplog.records if each.name == request_log.logger.name]


def test_its_setting_is_true_or_false():
    with pytest.raises(Refusal, match="handler.request_log is 1; it must be true or false"):
        caption_settings.read(config_with(request_log=1))
    assert caption_settings.read(SHIPPED).request_log


def test_requests_of_a_batch_have_its_steps_each_in_its_own_trace(
    captioner: CaptionHandler, monkeypatch: pytest.MonkeyPatch
):
    exporter = InMemorySpanExporter()
    monkeypatch.setattr(captioner, "tracing", tracing.Tracing(SimpleSpanProcessor(exporter)))
    hostile = "00-" + "f" * 3000
    rows: list[dict[str, Any]] = [{"body": PNG}, {"body": b"no"}, {"body": PNG}, {"body": PNG}]
    headers = [
        {"traceparent": f"00-{TRACES[0]}-00f067aa0ba902b7-01", "X-Request-Id": "first"},
        {"traceparent": f"00-{TRACES[1]}-00f067aa0ba902b7-01"},
        {"traceparent": f"00-{'c' * 32}-00f067aa0ba902b7-02"},  # the gateway records it not
        {"traceparent": hostile},
    ]
    batch(captioner, rows, headers)
    spans = exporter.get_finished_spans()
    by_trace: dict[str, dict[str, Any]] = {}
    for span in spans:
        assert span.context is not None
        by_trace.setdefault(f"{span.context.trace_id:032x}", {})[span.name] = span
    assert len(by_trace) == 3  # the fourth has a trace of its own
    assert "c" * 32 not in by_trace
    for trace in TRACES:
        own = by_trace[trace]
        assert own.keys() == {"clipcap", "decode", "encode", "generate"}
        outer = own["clipcap"]
        assert outer.parent.span_id == 0x00F067AA0BA902B7
        assert outer.attributes["batch.requests"] == 4
        for name in ("decode", "encode", "generate"):
            assert own[name].parent.span_id == outer.context.span_id
            assert outer.start_time <= own[name].start_time <= own[name].end_time <= outer.end_time
        assert own["decode"].end_time <= own["encode"].start_time + 1000  # ns, of rounding
    first, second = (by_trace[trace]["clipcap"] for trace in TRACES)
    assert first.attributes["request.id"] == "first"
    assert second.attributes["error.type"] == "image_undecodable"


def test_without_a_collector_there_are_no_traces_and_nothing_is_imported(
    monkeypatch: pytest.MonkeyPatch,
):
    for name in tracing.ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    assert tracing.from_environment() is None
    # The interface alone is imported by FastAPI, if it is installed.
    code = (
        "import sys, handler.caption_handler, gateway.__main__;"
        "heavy = 'opentelemetry.sdk', 'opentelemetry.exporter';"
        "print([name for name in sys.modules if name.startswith(heavy)])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_worker_without_opentelemetry_runs_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv(tracing.ENDPOINTS[0], "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    assert tracing.from_environment() is None
    assert "OpenTelemetry is not installed: this worker sends no spans" in caplog.text


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["--sock-type", "unix", "--sock-name", "/tmp/x/.ts.sock.9001"], "W-9001"),
        (["--sock-type", "tcp", "--port", "29500"], "W-29500"),
        (["pytest", "-q"], "W-0"),
    ],
)
def test_a_worker_has_the_name_of_its_socket(words: list[str], name: str):
    assert caption_handler.worker_name(words) == name
