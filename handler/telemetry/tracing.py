"""Spans of the requests of a batch, sent to a collector of OpenTelemetry; off by default.

They are on if the environment of TorchServe has `OTEL_EXPORTER_OTLP_ENDPOINT`, as for the gateway
(`gateway/telemetry/tracing.py`), which decides which of its requests are recorded. A worker runs
without OpenTelemetry; it then says in its log that it sends no spans.

A request has one span for its time in the handler, and one for each step of its batch:

    clipcap       from when the worker began with the batch until the reply
      decode      reading the requests and decoding their pictures
      encode      CLIP
      generate    the search for captions
      explain     explanations

The steps are those of the whole batch, so its requests have the same ones, each in its own trace;
`batch.requests` and `batch.pictures` say how many share them. The header `traceparent` makes them
part of the gateway's trace. Over gRPC no header reaches a handler, so its requests begin a trace.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from handler.request_result import RequestResult
from handler.requests.fields import header
from handler.telemetry.phases import Phases

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.sdk.trace.sampling import Sampler

logger = logging.getLogger(__name__)

#: The variables that name a collector, for all signals and for traces alone.
ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
#: The variable that says which requests are recorded, and their share where it does not.
SAMPLER, SHARE = "OTEL_TRACES_SAMPLER", 0.1
#: Most characters of `traceparent` that are read; 00-<trace>-<span>-<flags> has 55.
_LONGEST = 200
#: A request that the gateway does not record: the last bit of the flags is 0.
_NOT_RECORDED = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f][02468ace]")


def from_environment() -> Tracing | None:
    """Traces for the collector that the environment names; None if it names none."""
    variable = next((name for name in ENDPOINTS if os.environ.get(name)), None)
    if variable is None:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    except ImportError:
        logger.error(
            "%s is set, but OpenTelemetry is not installed: this worker sends no spans; install "
            "it: pip install 'clipcap[tracing]'",
            variable,
        )
        return None
    sampler = None if os.environ.get(SAMPLER) else ParentBased(TraceIdRatioBased(SHARE))
    return Tracing(BatchSpanProcessor(OTLPSpanExporter()), sampler)


class Tracing:
    """Makes the spans of batches.

    Args:
        processor: Takes the spans that have ended.
        sampler: Decides which requests are recorded; None for what the environment says, or all.
    """

    def __init__(self, processor: SpanProcessor, sampler: Sampler | None = None) -> None:
        from opentelemetry import trace
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        name = os.environ.get("OTEL_SERVICE_NAME", "clipcap-handler")
        provider = TracerProvider(sampler, resource=Resource.create({SERVICE_NAME: name}))
        provider.add_span_processor(processor)
        self._tracer = provider.get_tracer("handler")
        self._trace = trace
        self._traceparent = TraceContextTextMapPropagator()

    def record(
        self,
        results: Sequence[RequestResult],
        headers: Sequence[Mapping[str, Any]],
        ids: Sequence[str],
        phases: Phases,
    ) -> None:
        """Make the spans of a batch that has ended.

        Args:
            results: What became of each request.
            headers: HTTP headers of each.
            ids: What names each in the log.
            phases: The steps of the batch.
        """
        end = phases.end()
        batch = {
            "batch.requests": len(results),
            "batch.pictures": sum(len(each.images) for each in results),
        }
        for result, own, name in zip(results, headers, ids, strict=True):
            traceparent = header(own, "traceparent")
            if _NOT_RECORDED.fullmatch(traceparent):
                continue
            carrier = {"traceparent": traceparent} if len(traceparent) <= _LONGEST else {}
            span = self._tracer.start_span(
                "clipcap",
                self._traceparent.extract(carrier),
                self._trace.SpanKind.SERVER,
                {"request.id": name, "clipcap.pictures": len(result.images), **batch},
                start_time=_nanoseconds(phases.begin),
            )
            if result.failure is not None:
                span.set_attribute("error.type", result.failure.code)
                if result.failure.status >= 500:
                    span.set_status(self._trace.StatusCode.ERROR)
            if span.is_recording():
                context = self._trace.set_span_in_context(span)
                for phase in phases.found:
                    part = self._tracer.start_span(
                        phase.name, context, start_time=_nanoseconds(phase.begin)
                    )
                    part.end(_nanoseconds(phase.begin + phase.seconds))
            span.end(_nanoseconds(end))


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
