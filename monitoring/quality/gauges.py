"""The figures as gauges of Prometheus, in a file that its node exporter reads.

A figure of a week needs no server of its own: cron runs the command and the file stays, so the
gauges are there between two runs, and a run that fails leaves the last ones. The gauge of the time
tells how old they are. The file is replaced as a whole, so that half of one is never read.

A new version of a model has no past of its own. So the alert compares a model, all its versions
together, in the last 7 days with the 28 days before; the versions have gauges beside that.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

from monitoring.quality.figures import Quality, Tally

#: Values of the labels -> what was said.
Tallies = dict[tuple[str, ...], Tally]

_MODEL, _VERSION = ("model", "window"), ("model", "version", "window")


def write_gauges(quality: Quality, file: Path, now: float) -> None:
    """Write the gauges.

    Args:
        quality: The figures.
        file: Ends with `.prom`; in the folder of the node exporter's textfile collector.
        now: When the figures were computed, in seconds since 1970.
    """
    registry = CollectorRegistry()
    models: Tallies = {(model, window): tally for (window, model), tally in quality.models.items()}
    versions: Tallies = {
        (model, version, window): tally
        for (window, model, version), tally in quality.versions.items()
    }
    _add(registry, "clipcap_feedback", "of a model", _MODEL, models)
    _add(registry, "clipcap_version_feedback", "of a version of a model", _VERSION, versions)
    Gauge(
        "clipcap_feedback_updated_timestamp_seconds",
        "When the figures of feedback were computed",
        registry=registry,
    ).set(now)
    write_to_textfile(str(file), registry)


def _add(
    registry: CollectorRegistry,
    prefix: str,
    of: str,
    labels: Sequence[str],
    tallies: Tallies,
) -> None:
    def gauge(name: str, help_: str) -> Gauge:
        return Gauge(f"{prefix}_{name}", f"{help_} {of}", labels, registry=registry)

    counts = {
        "thumbs": gauge("thumbs", "Thumbs that captions got,"),
        "corrections": gauge("corrections", "Captions that people corrected,"),
    }
    ends = {"": "", "_low": ", lower end of its 95 percent interval", "_high": ", upper end"}
    shares = [
        gauge(f"thumbs_up_share{end}", f"Share of thumbs that are up{which},")
        for end, which in ends.items()
    ]
    ciders = [
        gauge(f"cider{end}", f"CIDEr of captions against their corrections{which},")
        for end, which in ends.items()
    ]
    for values, tally in tallies.items():
        for name, each in counts.items():
            each.labels(*values).set(getattr(tally, name))
        for gauges, estimate in ((shares, tally.up_share()), (ciders, tally.cider.estimate())):
            if estimate is not None:
                for each, value in zip(gauges, estimate, strict=True):
                    each.labels(*values).set(value)
