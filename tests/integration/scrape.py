"""Reads TorchServe's metrics with Prometheus' own parser."""

from __future__ import annotations

import httpx
from prometheus_client.parser import text_string_to_metric_families

from deploy.torchserve import TorchServe


def metrics_of(server: TorchServe) -> list[tuple[str, dict[str, str], float]]:
    """Every sample that `/metrics` shows: name, labels, value."""
    text = httpx.get(f"{server.metrics}/metrics").text
    return [
        (sample.name, dict(sample.labels), sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]


def value_of(server: TorchServe, name: str, **labels: str) -> float:
    """The sum of the samples of one name that carry these labels; 0 if there are none yet."""
    return sum(
        value
        for sample, its_labels, value in metrics_of(server)
        if sample == name and labels.items() <= its_labels.items()
    )
