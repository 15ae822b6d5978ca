"""A table of two captioners side by side, from the gateway's metrics.

    python -m monitoring.compare [--address URL] [--token-file FILE] [--json]

It shows the captioner that is served and the one that `make canary` tries out beside it, since the
trial began: pictures, failures, seconds, words and confidence of captions; and, where the candidate
gets copies, how often both gave the same caption. Beside each figure stand the limits between which
it lies in 95 of 100 cases. docs/canary.md tells how to read it.

The exit status is 0, or 2 if the gateway gives no metrics.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from model.refusal import Refusal
from monitoring.histogram import Histogram, Interval, share_of
from monitoring.key import TOKEN, read_key

VERSIONS = ("stable", "candidate")
#: Pictures of each captioner below which a missing difference says little.
FEW = 100


@dataclasses.dataclass(frozen=True)
class Row:
    """A figure of both captioners.

    Attributes:
        name: What it is.
        figures: Of the stable captioner and of the candidate.
        text: Writes a number for people.
    """

    name: str
    figures: tuple[Interval, Interval]
    text: Callable[[float], str]

    @property
    def verdict(self) -> str:
        """Whether the candidate's is higher or lower beyond doubt; empty without two figures."""
        stable, candidate = self.figures
        if math.isnan(stable.value) or math.isnan(candidate.value):
            return ""
        if not candidate.differs_from(stable):
            return "no clear difference"
        return "higher" if candidate.value > stable.value else "lower"


class Metrics:
    """The samples of a page in Prometheus' text format.

    Args:
        text: The page.
    """

    def __init__(self, text: str) -> None:
        self._samples = [
            sample for family in text_string_to_metric_families(text) for sample in family.samples
        ]

    def find(self, name: str, **labels: str) -> Iterator[tuple[dict[str, str], float]]:
        """Labels and value of each sample of a name that carries some labels."""
        for sample in self._samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                yield dict(sample.labels), sample.value

    def value(self, name: str, **labels: str) -> float:
        """The sum of these samples."""
        return sum(value for _, value in self.find(name, **labels))

    def histogram(self, name: str, **labels: str) -> Histogram:
        """A histogram."""
        buckets = sorted(
            (float(found["le"]), value) for found, value in self.find(f"{name}_bucket", **labels)
        )
        counts = [value for _, value in buckets]
        own = [count - before for count, before in zip(counts, [0.0, *counts], strict=False)]
        limits = [limit for limit, _ in buckets]
        return Histogram(limits, own, self.value(f"{name}_sum", **labels))


def rows_of(metrics: Metrics) -> list[Row]:
    """The figures that both captioners have."""

    def both(figure: Callable[[str], Interval]) -> tuple[Interval, Interval]:
        return figure(VERSIONS[0]), figure(VERSIONS[1])

    def pictures(version: str, outcome: str) -> float:
        return metrics.value("gateway_version_pictures_total", version=version, outcome=outcome)

    def failures(version: str) -> Interval:
        failed = pictures(version, "failed")
        return share_of(failed, failed + pictures(version, "captioned"))

    def histogram(name: str, figure: Callable[[Histogram], Interval]) -> tuple[Interval, Interval]:
        return both(lambda v: figure(metrics.histogram(f"gateway_version_{name}", version=v)))

    def count(version: str, outcome: str) -> Interval:
        found = pictures(version, outcome)
        return Interval(found, math.nan, math.nan)

    return [
        Row("captioned", both(lambda v: count(v, "captioned")), "{:.0f}".format),
        Row("failed", both(lambda v: count(v, "failed")), "{:.0f}".format),
        Row("failed, share", both(failures), _percent),
        Row("median seconds", histogram("seconds", lambda h: h.quantile(0.5)), "{:.3f}".format),
        Row("p95 seconds", histogram("seconds", lambda h: h.quantile(0.95)), "{:.3f}".format),
        Row("words", histogram("caption_words", Histogram.mean), "{:.1f}".format),
        Row("confidence", histogram("confidence", Histogram.mean), "{:.3f}".format),
    ]


def agreement_of(metrics: Metrics) -> list[tuple[str, Interval, Callable[[float], str]]]:
    """How alike the captions of both are, of pictures that both have captioned; may be empty."""
    compared = metrics.value("gateway_shadow_pictures_total", outcome="compared")
    if not compared:
        return []
    equal = share_of(metrics.value("gateway_shadow_equal_total"), compared)
    overlap = metrics.histogram("gateway_shadow_word_f1").mean()
    return [("same caption", equal, _percent), ("word F1", overlap, "{:.3f}".format)]


def table(metrics: Metrics) -> str:
    """What is printed."""
    rows = rows_of(metrics)
    infos = {
        version: labels
        for version in VERSIONS
        for labels, _ in metrics.find("gateway_version_info", version=version)
    }
    lines = []
    for version in VERSIONS:
        if info := infos.get(version):
            named = f"{info['model']} {info['model_version']}".strip() or "not asked yet"
            lines.append(
                f"{version + ':':11}{named} at {info['inference']}{_gets(metrics, version)}"
            )
    if "candidate" not in infos:
        lines.append("candidate: none is tried out; begin: make canary CHECKPOINT=DIR")
    lines += ["", f"{'':16}{'stable':28}{'candidate':28}candidate is"]
    for row in rows:
        cells = "".join(f"{_cell(each, row.text):28}" for each in row.figures)
        lines.append(f"{row.name:16}{cells}{row.verdict}".rstrip())
    if agreement := agreement_of(metrics):
        compared = metrics.value("gateway_shadow_pictures_total", outcome="compared")
        lines += ["", f"copies compared: {compared:.0f}{_dropped(metrics)}"]
        lines += [f"{name:16}{_cell(each, text)}" for name, each, text in agreement]
    counts = [each.value for each in rows[0].figures]
    if "candidate" in infos and min(counts) < FEW:
        lines += ["", f"fewer than {FEW} pictures of one captioner: only large differences show"]
    return "\n".join(lines)


def _gets(metrics: Metrics, version: str) -> str:
    """What the candidate gets, in words."""
    if version != "candidate":
        return ""
    if metrics.value("gateway_candidate_stopped"):
        return ", STOPPED after too many failures: make rollback"
    for labels, share in metrics.find("gateway_candidate_share_percent"):
        what = "copies of " if labels["gets"] == "copies" else ""
        return f", gets {what}{share:g}% of the requests"
    return ""


def _dropped(metrics: Metrics) -> str:
    parts = [
        f"{count:.0f} {word}"
        for outcome, word in (
            ("failed", "failed"),
            ("slow", "dropped because too many waited"),
            ("memory", "dropped for want of memory"),
        )
        if (count := metrics.value("gateway_shadow_pictures_total", outcome=outcome))
    ]
    return f" ({', '.join(parts)})" if parts else ""


def _percent(value: float) -> str:
    return f"{value:.1%}"


def _cell(figure: Interval, text: Callable[[float], str]) -> str:
    if math.isnan(figure.value):
        return "-"
    if math.isnan(figure.low):
        return text(figure.value)
    return f"{text(figure.value)} ({text(figure.low)} to {text(figure.high)})"


def as_json(metrics: Metrics) -> dict[str, Any]:
    """The same for programs: name -> version -> value, low, high; null for what is unknown."""

    def numbers(figure: Interval) -> dict[str, float | None]:
        return {
            name: None if math.isnan(value) else value
            for name, value in dataclasses.asdict(figure).items()
        }

    found: dict[str, Any] = {
        row.name: {
            **{name: numbers(each) for name, each in zip(VERSIONS, row.figures, strict=True)},
            "verdict": row.verdict,
        }
        for row in rows_of(metrics)
    }
    found |= {name: numbers(each) for name, each, _ in agreement_of(metrics)}
    return found


def read_metrics(address: str, token: str | None) -> Metrics:
    """Ask a gateway for its metrics.

    Args:
        address: Of the gateway.
        token: Its key; None for none.

    Raises:
        Refusal: It does not answer, or not with the metrics of a gateway.
    """
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = f"{address.rstrip('/')}/metrics"
    try:
        reply = httpx.get(url, headers=headers, timeout=15, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Refusal(f"{url} does not answer: {error}; start it: make serve") from None
    if reply.status_code == 401:
        raise Refusal(f"{url} needs a key; give --token-file, or set {TOKEN}")
    if reply.status_code != 200 or "gateway_version_pictures" not in reply.text:
        raise Refusal(f"{url} gives no metrics of a gateway (status {reply.status_code})")
    return Metrics(reply.text)


def main() -> int:
    """Print the table.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m monitoring.compare", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--address", default="http://127.0.0.1:8000", help="of the gateway")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help=f"key (else ${TOKEN})")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    try:
        metrics = read_metrics(given.address, read_key(given.token_file))
        print(json.dumps(as_json(metrics), indent=1) if given.json else table(metrics))
    except (Refusal, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
