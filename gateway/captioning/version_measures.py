"""What the gateway counts of two captioners side by side, for Prometheus.

Everything begins at 0 when one of the two becomes another one: figures of a trial are of this trial
alone, and those of the stable captioner are of the same time. To Prometheus this is what a restart
of the gateway is.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from client import CaptionResult
from client.agreement import word_f1
from gateway.captioning.backends import Backends
from gateway.captioning.trial import CANDIDATE, STABLE

#: Upper limits in seconds; close enough for percentiles of captions.
SECONDS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2.5, 5, 10, 30, 60)
WORDS = (1, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 25, 30, 40)
#: Upper limits of confidences and of the overlap of words.
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)


class VersionMeasures:
    """Counters with a label `version`: `stable` or `candidate`."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self._registry = CollectorRegistry()
        self._pictures = Counter(
            "gateway_version_pictures",
            "Pictures by the captioner that was asked, and what became of them: captioned, refused "
            "(as any captioner would), failed",
            ["version", "outcome"],
            registry=self._registry,
        )
        self._seconds = self._histogram("seconds", "Seconds that TorchServe took", SECONDS)
        self._words = self._histogram("caption_words", "Words of the best caption", WORDS)
        self._confidence = self._histogram("confidence", "Confidence of the best caption", SHARES)
        self._info = Gauge(
            "gateway_version_info",
            "1 for the captioner that is served as this version",
            ["version", "model", "model_version", "inference"],
            registry=self._registry,
        )
        self.fallbacks = Counter(
            "gateway_candidate_fallbacks",
            "Pictures that the stable captioner was asked about because the candidate failed",
            registry=self._registry,
        )
        self._share = Gauge(
            "gateway_candidate_share_percent",
            "Percent of the requests that go to the candidate, by what it gets: requests or copies",
            ["gets"],
            registry=self._registry,
        )
        self._stopped = Gauge(
            "gateway_candidate_stopped",
            "1 if the candidate failed too often and gets no more requests",
            registry=self._registry,
        )
        self.shadow = Counter(
            "gateway_shadow_pictures",
            "Copies of pictures for the candidate by what became of them: compared; failed; "
            "dropped because too many wait (slow) or for want of memory (memory), or at the end of "
            "the trial (ended)",
            ["outcome"],
            registry=self._registry,
        )
        self._equal = Counter(
            "gateway_shadow_equal",
            "Copies whose caption was that of the stable captioner",
            registry=self._registry,
        )
        self._f1 = Histogram(
            "gateway_shadow_word_f1",
            "Overlap of the words of both captions, 0 to 1",
            buckets=SHARES,
            registry=self._registry,
        )
        self.shadow_bytes = Gauge(
            "gateway_shadow_bytes",
            "Bytes of copies for the candidate that are in memory now",
            registry=self._registry,
        )
        for outcome in ("captioned", "refused", "failed"):
            for version in (STABLE, CANDIDATE):
                self._pictures.labels(version, outcome)
        for outcome in ("compared", "failed", "slow", "memory", "ended"):
            self.shadow.labels(outcome)
        self._models: dict[str, tuple[str, str]] = {}

    def captioned(self, version: str, result: CaptionResult, seconds: float) -> None:
        """Count a caption.

        Args:
            version: `stable` or `candidate`.
            result: What it gave.
            seconds: How long TorchServe took.
        """
        self._pictures.labels(version, "captioned").inc()
        self._seconds.labels(version).observe(seconds)
        self._words.labels(version).observe(len(result.caption.split()))
        self._confidence.labels(version).observe(result.confidence)
        self._models[version] = result.model, result.version

    def refused(self, version: str) -> None:
        """Count a picture or an option that cannot be served."""
        self._pictures.labels(version, "refused").inc()

    def failed(self, version: str) -> None:
        """Count a failure of the captioner."""
        self._pictures.labels(version, "failed").inc()

    def compared(self, stable: CaptionResult, candidate: CaptionResult) -> None:
        """Count a copy that both have captioned."""
        self.shadow.labels("compared").inc()
        self._equal.inc(stable.caption == candidate.caption)
        self._f1.observe(word_f1(stable.caption, candidate.caption))

    def text(self, backends: Backends) -> bytes:
        """All of it in Prometheus' text format."""
        trial = backends.trial
        addresses = {STABLE: backends.current.inference}
        self._share.clear()
        if trial:
            addresses[CANDIDATE] = trial.backend.inference
            self._share.labels("copies" if trial.shadow else "requests").set(trial.share)
        self._stopped.set(trial is not None and trial.stopped)
        self._info.clear()
        for version, address in addresses.items():
            model, model_version = self._models.get(version, ("", ""))
            self._info.labels(version, model, model_version, address).set(1)
        return generate_latest(self._registry)

    def _histogram(self, name: str, text: str, limits: tuple[float, ...]) -> Histogram:
        return Histogram(
            f"gateway_version_{name}", text, ["version"], buckets=limits, registry=self._registry
        )
