"""What the gateway counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from gateway.captioning.backends import Backends
from gateway.captioning.torchserve import State
from gateway.captioning.torchserve_metrics import with_candidate
from gateway.captioning.trial import CANDIDATE
from gateway.captioning.version_measures import VersionMeasures

#: Upper limits in seconds; captions take from 50 ms to the deadline.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
#: What pictures are counted as from the start: a rate needs a value before the first event.
OUTCOMES = ("captioned", "explained", "worker_failed", "deadline")
#: Why a connection is ended, as counted from the start.
CONNECTION_REASONS = ("too_many", "too_slow", "handshake")


class Measures:
    """Counters of one gateway, in a registry of their own.

    Attributes:
        registry: Where they are shown.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.versions = VersionMeasures()
        # gateway_process_resident_memory_bytes, gateway_process_cpu_seconds_total, ... (Linux)
        ProcessCollector(namespace="gateway", registry=self.registry)
        self.requests = Counter(
            "gateway_requests",
            "Requests that were answered",
            ["route", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "gateway_request_seconds",
            "Seconds from the head of a request to the end of its answer",
            ["route"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.pictures = Counter(
            "gateway_pictures",
            "Pictures by what became of them: captioned, or the code of their error",
            ["outcome"],
            registry=self.registry,
        )
        self.resent = Counter(
            "gateway_pictures_resent",
            "Pictures that were sent to TorchServe once more",
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "gateway_pictures_in_flight",
            "Pictures that are here or in TorchServe now",
            registry=self.registry,
        )
        self.waiting = Gauge(
            "gateway_pictures_waiting",
            "Pictures that wait for their turn, so that they are not in TorchServe",
            registry=self.registry,
        )
        self.abandoned = Counter(
            "gateway_requests_abandoned",
            "Requests whose client left before its answer",
            registry=self.registry,
        )
        self.body_bytes = Gauge(
            "gateway_body_bytes",
            "Bytes of the requests that are in memory now",
            registry=self.registry,
        )
        self.connections = Gauge(
            "gateway_connections",
            "Connections that are open now",
            registry=self.registry,
        )
        self.connections_refused = Counter(
            "gateway_connections_refused",
            "Connections that the gateway ended: too many, or no proper head of a request in time",
            ["reason"],
            registry=self.registry,
        )
        self.torchserve_up = Gauge(
            "gateway_torchserve_up",
            "1 if TorchServe gave its metrics for this scrape, else 0",
            registry=self.registry,
        )
        self.torchserve_workers = Gauge(
            "gateway_torchserve_workers_ready",
            "Workers of TorchServe that are ready",
            registry=self.registry,
        )
        self.torchserve_queue = Gauge(
            "gateway_torchserve_queue",
            "Requests that wait in TorchServe's queue",
            registry=self.registry,
        )
        self._backend = Gauge(
            "gateway_backend_info",
            "1 for the TorchServe that requests go to which begin now",
            ["inference"],
            registry=self.registry,
        )
        self._backend_in_flight = Gauge(
            "gateway_backend_in_flight",
            "Requests that a TorchServe has not answered yet",
            ["inference"],
            registry=self.registry,
        )
        for outcome in OUTCOMES:
            self.pictures.labels(outcome)
        for reason in CONNECTION_REASONS:
            self.connections_refused.labels(reason)

    def text(
        self,
        torchserve: bytes | None,
        state: State | None,
        backends: Backends,
        candidate: bytes | None = None,
    ) -> bytes:
        """The metrics of all servers in Prometheus' text format.

        Args:
            torchserve: TorchServe's own; None if it did not answer.
            state: Its workers and its queue; None if it did not answer.
            backends: Where requests go.
            candidate: The metrics of the TorchServe that is tried out; None if there is none, or it
                did not answer. Their samples get a label `version`.
        """
        self._backend.clear()
        self._backend.labels(backends.current.inference).set(1)
        self._backend_in_flight.clear()
        for each in backends.all:
            self._backend_in_flight.labels(each.inference).inc(each.in_flight)
        self.torchserve_up.set(torchserve is not None)
        self.torchserve_workers.set(state.ready_workers if state else 0)
        self.torchserve_queue.set(state.waiting if state else 0)
        pages = torchserve or b""
        if candidate is not None:
            pages = with_candidate(pages.decode(), candidate.decode(), CANDIDATE).encode()
        return generate_latest(self.registry) + self.versions.text(backends) + pages
