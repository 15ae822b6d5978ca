"""What a round with the golden pictures found, for Prometheus.

After a round in which nothing could be asked, the gauges of captions are NaN: an old value would
say that all is well.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

from monitoring.golden.asking import Round


class Gauges:
    """Gauges of one captioner, in a registry of their own.

    Args:
        recorded: The version that the reference was recorded from.

    Attributes:
        registry: For `prometheus_client.start_http_server`.
    """

    def __init__(self, recorded: str) -> None:
        self.registry = CollectorRegistry()
        self._recorded = recorded
        self._match = self._gauge("match", "Share of the golden pictures with the caption expected")
        self._similarity = self._gauge(
            "similarity", "Word F1 of captions and those expected, mean of the golden pictures"
        )
        self._log_prob = self._gauge(
            "log_prob_difference",
            "Largest difference of a log-probability, in nats a token, where captions are equal",
        )
        self._cosine = self._gauge(
            "feature_cosine", "Smallest cosine of a feature and the one expected"
        )
        self._seconds = self._gauge("seconds", "Seconds of the slowest reply of the last round")
        self._round = self._gauge("last_round_timestamp_seconds", "When the last round ended")
        self._success = self._gauge(
            "last_success_timestamp_seconds", "When all golden pictures were as expected; 0: never"
        )
        self._pictures = self._gauge(
            "pictures", "Golden pictures by what became of them: right, wrong, unasked", ["outcome"]
        )
        self._model = self._gauge(
            "model_info", "1 for the model that answered", ["model", "version", "recorded"]
        )

    def show(self, found: Round) -> None:
        """Set the gauges to what a round found."""
        asked, now = found.asked, time.time()
        self._match.set(_mean(float(each.equal) for each in asked))
        self._similarity.set(_mean(each.similarity for each in asked))
        log_probs = [each.log_prob for each in asked if each.log_prob is not None]
        self._log_prob.set(max(log_probs, default=math.nan))
        cosines = [each.cosine for each in asked if each.cosine is not None]
        self._cosine.set(min(cosines, default=math.nan))
        self._seconds.set(max(each.seconds for each in found.answers))
        self._round.set(now)
        if found.status == 0:
            self._success.set(now)
        for outcome, count in (
            ("right", len(asked) - len(found.wrong)),
            ("wrong", len(found.wrong)),
            ("unasked", len(found.answers) - len(asked)),
        ):
            self._pictures.labels(outcome).set(count)
        self._model.clear()
        for model in {each.model for each in asked if each.model}:
            self._model.labels(*model, self._recorded).set(1)

    def write(self, file: Path) -> None:
        """Write a file for the textfile collector of Prometheus' node exporter, as a whole.

        Raises:
            OSError: It cannot be written.
        """
        write_to_textfile(str(file), self.registry)

    def _gauge(self, name: str, text: str, labels: Iterable[str] = ()) -> Gauge:
        return Gauge(f"clipcap_golden_{name}", text, labels, registry=self.registry)


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else math.nan
