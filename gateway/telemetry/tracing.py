"""Traces of requests: spans that are sent to a collector of OpenTelemetry, off by default.

They are on if `OTEL_EXPORTER_OTLP_ENDPOINT` names a collector, such as `http://127.0.0.1:4318`.
Spans go there in OTLP over HTTP, in the background and in groups. If the collector does not answer,
they are dropped and the log says so; no request waits for it.

One request in ten is recorded, unless `OTEL_TRACES_SAMPLER` says otherwise:
`parentbased_always_on`, or `parentbased_traceidratio` and `OTEL_TRACES_SAMPLER_ARG`. To record
every request costs a small captioner some percent of its throughput (docs/monitoring.md). The other
variables of OpenTelemetry apply as well.

A request has these spans:

    POST /v1/captions   the whole request
      fetch             fetching a picture by URL
      queue             waiting for a place in TorchServe
      torchserve        from the request to TorchServe to the end of its reply
        clipcap ...     the handler's own spans, see `handler/telemetry/tracing.py`

Of a client's `traceparent` only the id of the trace is taken over. Its flags are not, because a
client must not decide what is recorded, nor is any other header of it passed on.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from gateway.settings import SettingsError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.sdk.trace.sampling import Sampler
    from opentelemetry.trace import Span

#: The variables that name a collector, for all signals and for traces alone.
ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
#: The variable that says which requests are recorded, and their share where it does not.
SAMPLER, SHARE = "OTEL_TRACES_SAMPLER", 0.1
#: Most characters of `traceparent` that are read; 00-<trace>-<span>-<flags> has 55.
_LONGEST = 200


def from_environment() -> Tracing | None:
    """Traces for the collector that the environment names; None if it names none.

    OpenTelemetry is imported here only, so that without traces it costs nothing.

    Raises:
        SettingsError: It names one, and OpenTelemetry is not installed or cannot use its name.
    """
    variable = next((name for name in ENDPOINTS if os.environ.get(name)), None)
    if variable is None:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    except ImportError:
        raise SettingsError(
            f"{variable} is {os.environ[variable][:80]!r}, but OpenTelemetry is not installed; "
            "install it: pip install 'clipcap[tracing]', or unset the variable"
        ) from None
    if not os.environ[variable].startswith(("http://", "https://")):
        raise SettingsError(
            f"{variable} is {os.environ[variable][:80]!r}; it must be an address such as "
            "http://127.0.0.1:4318"
        )
    sampler = None if os.environ.get(SAMPLER) else ParentBased(TraceIdRatioBased(SHARE))
    return Tracing(BatchSpanProcessor(OTLPSpanExporter()), sampler)


class Tracing:
    """Makes the spans of requests.

    Args:
        processor: Takes the spans that have ended.
        sampler: Decides which requests are recorded; None for what the environment says, or all.
    """

    def __init__(self, processor: SpanProcessor, sampler: Sampler | None = None) -> None:
        from opentelemetry import trace
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        class Ids(RandomIdGenerator):
            """Random ids, but for a trace whose id a client has given."""

            given: int | None = None

            def generate_trace_id(self) -> int:
                found, self.given = self.given, None
                return super().generate_trace_id() if found is None else found

        self._ids = Ids()
        name = os.environ.get("OTEL_SERVICE_NAME", "clipcap-gateway")
        self._provider = TracerProvider(
            sampler,
            resource=Resource.create({SERVICE_NAME: name}),
            id_generator=self._ids,
            shutdown_on_exit=False,  # `close` does it, before the process ends
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("gateway")
        self._trace = trace
        self._traceparent = TraceContextTextMapPropagator()

    @contextlib.contextmanager
    def request(self, traceparent: str, request_id: str) -> Iterator[Span]:
        """The span of a whole request, which lasts as long as the `with` block.

        Args:
            traceparent: The client's header; anything that is none is ignored.
            request_id: Its id in the log.
        """
        self._ids.given = self._trace_id(traceparent)
        span = self._tracer.start_span(
            "request", kind=self._trace.SpanKind.SERVER, attributes={"request.id": request_id}
        )
        self._ids.given = None  # it is left if the span is not recorded
        with self._trace.use_span(
            span, end_on_exit=True, record_exception=False, set_status_on_exception=False
        ):
            yield span

    def answered(self, span: Span, fields: dict[str, str | int | bool | None]) -> None:
        """Note in the span of a request what became of it.

        Args:
            span: That of `request`.
            fields: Of its line in the log.
        """
        if not span.is_recording():
            return
        span.update_name(f"{fields['method']} {fields['route']}")
        names = {
            "method": "http.request.method",
            "route": "http.route",
            "status": "http.response.status_code",
            "bytes": "http.request.body.size",
            "pictures": "clipcap.pictures",
            "model_version": "clipcap.model_version",
            "abandoned": "clipcap.abandoned",
        }
        for field, name in names.items():
            if (value := fields[field]) is not None:
                span.set_attribute(name, value)
        if isinstance(status := fields["status"], int) and status >= 500:
            span.set_status(self._trace.StatusCode.ERROR)

    def part(self, name: str) -> contextlib.AbstractContextManager[object]:
        """The span of a part of the request that is served now, if the request is recorded.

        Args:
            name: What is done in the `with` block.
        """
        if not self._trace.get_current_span().is_recording():
            return contextlib.nullcontext()
        kinds = self._trace.SpanKind
        kind = kinds.CLIENT if name == "torchserve" else kinds.INTERNAL
        return self._tracer.start_as_current_span(name, kind=kind, record_exception=False)

    def headers(self) -> dict[str, str]:
        """The header that makes the spans of another program part of the present span."""
        carrier: dict[str, str] = {}
        self._traceparent.inject(carrier)
        return {name: carrier[name] for name in ("traceparent",) if name in carrier}

    def id_of(self, span: Span) -> str:
        """The id of a span's trace: 32 hexadecimal digits."""
        return self._trace.format_trace_id(span.get_span_context().trace_id)

    def close(self) -> None:
        """Send what is left, and end."""
        self._provider.shutdown()

    def _trace_id(self, traceparent: str) -> int | None:
        """The id of the trace that a client's header names; None if it names none."""
        if not 0 < len(traceparent) <= _LONGEST:
            return None
        context = self._traceparent.extract({"traceparent": traceparent})
        found = self._trace.get_current_span(context).get_span_context()
        return found.trace_id if found.is_valid else None
