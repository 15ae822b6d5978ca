"""What the gateway tells of each request: its line in the log, and its spans."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from gateway.app import create_app
from gateway.captioning.torchserve import TorchServeClient
from gateway.measures import Measures
from gateway.settings import Settings, SettingsError
from gateway.telemetry import tracing
from gateway.telemetry.log import FIELDS, JsonFormatter
from tests import ROOT

TRACE = "0af7651916cd43dd8448eb211c80319c"


def ask(
    exporter: InMemorySpanExporter | None, method: str, path: str, headers: dict[str, Any]
) -> httpx.Response:
    """The reply of a gateway without a TorchServe."""
    settings = Settings(inference="http://127.0.0.1:9", restart_seconds=0.1)
    traces = tracing.Tracing(SimpleSpanProcessor(exporter)) if exporter else None
    app = create_app(settings, TorchServeClient(settings), Measures(), traces)

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(send())


def spans_of(headers: dict[str, Any], path: str = "/healthz") -> list[ReadableSpan]:
    exporter = InMemorySpanExporter()
    ask(exporter, "GET", path, headers)
    return list(exporter.get_finished_spans())


def trace_of(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"{span.context.trace_id:032x}"


def test_a_request_is_a_span_with_its_route_and_status():
    (span,) = spans_of({"X-Request-Id": "mine"})
    assert span.name == "GET /healthz"
    assert span.attributes is not None
    assert span.attributes["request.id"] == "mine"
    assert span.attributes["http.response.status_code"] == 200
    (other,) = spans_of({}, "/made/up?secret=1")
    assert other.name == "GET other"
    assert "secret" not in str(other.to_json())


def test_of_a_traceparent_only_the_id_of_the_trace_is_taken():
    (span,) = spans_of(
        {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-00", "tracestate": "a=b", "baggage": "c=d"}
    )
    assert trace_of(span) == TRACE
    assert span.parent is None
    assert span.context is not None
    assert span.context.trace_flags.sampled
    assert not span.context.trace_state


@pytest.mark.parametrize(
    "header",
    [
        "",
        "x",
        f"00-{TRACE}",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"ff-{TRACE}-00f067aa0ba902b7-01",
        f"00-{TRACE}-00f067aa0ba902b7-01" + "-x" * 4000,
        f"00-{TRACE.upper()}-00f067aa0ba902b7-01",
        b"\xff\x00",
    ],
)
def test_what_is_no_traceparent_is_ignored(header: str | bytes):
    first, second = (spans_of({"traceparent": header})[0] for _ in range(2))
    assert trace_of(first) != trace_of(second)
    assert TRACE not in (trace_of(first), trace_of(second))


def test_a_share_of_requests_is_recorded_whatever_clients_say(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    assert not spans_of({"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"})
    assert not spans_of({})


def test_one_request_in_ten_is_recorded_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(tracing.ENDPOINTS[0], "http://127.0.0.1:9")
    monkeypatch.setattr(
        "opentelemetry.sdk.trace.export.BatchSpanProcessor",
        lambda _: SimpleSpanProcessor(InMemorySpanExporter()),
    )

    def recorded() -> int:
        traces = tracing.from_environment()
        assert traces is not None
        found = 0
        for _ in range(400):
            with traces.request("", "mine") as span:
                found += span.is_recording()
                # The handler is told by the last bit, so that it records the same requests.
                flags = int(traces.headers()["traceparent"][-2:], 16)
                assert bool(flags & 1) == span.is_recording()
        return found

    monkeypatch.setenv(tracing.SAMPLER, "parentbased_always_on")
    assert recorded() == 400
    monkeypatch.delenv(tracing.SAMPLER)
    assert 10 < recorded() < 90  # all but once in 10**7 runs


def test_the_line_of_a_request_says_what_became_of_it(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, "gateway.requests"):
        ask(InMemorySpanExporter(), "GET", "/nowhere", {"traceparent": f"00-{TRACE}-{'1' * 16}-01"})
    (record,) = [each for each in caplog.records if hasattr(each, FIELDS)]
    line = json.loads(JsonFormatter().format(record))
    assert line.pop("seconds") >= 0
    assert line.pop("time")
    assert len(line.pop("id")) == 32
    assert line == {
        "level": "INFO",
        "method": "GET",
        "route": "other",
        "status": 404,
        "pictures": 0,
        "bytes": 0,
        "caller": None,
        "model_version": None,
        "abandoned": False,
        "trace": TRACE,
    }


def test_other_lines_are_json_too_with_their_traceback():
    try:
        raise ValueError("first line\nsecond line")
    except ValueError:
        record = logging.getLogger("x").makeRecord(
            *("x", logging.ERROR, __file__, 1, "it %s", ("broke\n",), sys.exc_info())
        )
    text = JsonFormatter().format(record)
    assert "\n" not in text
    line = json.loads(text)
    assert (line["level"], line["message"]) == ("ERROR", "it broke\n")
    assert line["exception"].endswith("second line")


def test_traces_are_off_unless_a_collector_is_named(monkeypatch: pytest.MonkeyPatch):
    for name in tracing.ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    assert tracing.from_environment() is None
    monkeypatch.setenv(tracing.ENDPOINTS[0], "127.0.0.1:4318")
    with pytest.raises(SettingsError, match="OTEL_EXPORTER_OTLP_ENDPOINT is '127.0.0.1:4318'; it"):
        tracing.from_environment()
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(SettingsError, match="but OpenTelemetry is not installed; install it"):
        tracing.from_environment()


def test_a_collector_that_cannot_be_used_is_refused_before_the_start():
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "--check"],
        cwd=ROOT,
        env={**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": "collector"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "error: OTEL_EXPORTER_OTLP_ENDPOINT is 'collector'; it must be an address such as "
        "http://127.0.0.1:4318\n"
    )
