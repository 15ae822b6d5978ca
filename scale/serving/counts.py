"""Adds up what all replicas count, for Prometheus, under the names of `handler/metrics.yaml`.

A scrape reaches one replica only, and replicas come and go. So they send what they count to this
deployment, of which there is one. Its counters begin at 0 again when it is started again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import prometheus_client
import yaml
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

import handler

#: Declares the metrics.
METRICS = Path(handler.__file__).parent / "metrics.yaml"
#: Seconds after which the gauges of a replica that says nothing more are left out.
FORGET_SECONDS = 60.0


class Counts:
    """The metrics of one model.

    Args:
        name: Of the model, for a label.
    """

    def __init__(self, name: str) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self._name, self._registry = name, CollectorRegistry()
        self._metrics: dict[str, Any] = {}
        self._seen: dict[tuple[str, str], float] = {}  # of gauges: name and label
        kinds = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}
        declared = yaml.safe_load(METRICS.read_text())["model_metrics"]
        for kind, make in kinds.items():
            for metric in declared[kind]:
                known, labels = metric["name"], metric["dimensions"]
                if known.startswith("clipcap_"):  # the others are TorchServe's own
                    self._metrics[known] = make(known, known, labels, registry=self._registry)

    def add(self, emitted: Sequence[tuple[str, float, str]]) -> None:
        """Take what a replica has counted.

        Args:
            emitted: Name, value and own label of each.
        """
        for name, value, label in emitted:
            metric = self._metrics[name].labels(self._name, "Model", *([label] if label else []))
            match self._metrics[name]:
                case Counter():
                    metric.inc(value)
                case Gauge():
                    metric.set(value)
                    self._seen[name, label] = time.monotonic()
                case _:
                    metric.observe(value)

    def text(self) -> bytes:
        """All metrics, in Prometheus' text format."""
        now = time.monotonic()
        for (name, label), seen in list(self._seen.items()):
            if now - seen > FORGET_SECONDS:
                self._metrics[name].remove(self._name, "Model", label)
                del self._seen[name, label]
        return generate_latest(self._registry)
