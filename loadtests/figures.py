"""The figures of a run, from the records of its requests and the samples of its processes.

A figure has one name everywhere: here, in `summary.json`, and behind `max_` or `min_` in
`thresholds.yaml`.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from loadtests.records import Record, Span
from loadtests.samples import Sample

#: Recovery is looked for in windows of this length, one every second.
WINDOW_SECONDS = 5.0
#: A window is as before the spike if its median is at most this many times the one before.
AS_BEFORE = 1.5

Figures = dict[str, Any]


def measure(records: Sequence[Record], spans: Sequence[Span], samples: Sequence[Sample]) -> Figures:
    """All figures.

    Args:
        records: Of all requests.
        spans: The stages.
        samples: Of all processes.

    Returns:
        Figures of the whole run by name; those that this run does not have are missing. `stages`,
        `clients` and `kinds` hold the figures of parts of it.
    """
    begin, end = spans[0].begin, spans[-1].end
    outcomes = collections.Counter(each.outcome for each in records)
    figures: Figures = {
        "requests": len(records),
        **_latencies(records, end - begin),
        "refused": outcomes["refused"],
        "unanswered": outcomes["unanswered"],
        "wrong_replies": outcomes["wrong"],
        "ties_percent": _percent(sum(each.ties for each in records), len(records)),
        **_refusals(records),
        **_growth(samples, begin, end),
        **_processors(samples, spans[-1]),
        "stages": {span.name: _stage(records, span) for span in spans},
        "kinds": _by(records, lambda each: each.kind, end - begin),
        "clients": _by(records, lambda each: each.client, end - begin),
        "problems": collections.Counter(
            f"{each.outcome}: {each.kind}: {each.problem}" for each in records if each.problem
        ).most_common(20),
    }
    figures |= _overload(figures, spans)
    figures |= _fairness(figures["clients"])
    if len(spans) == 1:
        figures |= _median_growth(records, spans[0])
    if len(spans) == 3:
        figures |= _recovery(records, spans)
    return figures


def captions_per_second(records: Sequence[Record], span: Span) -> float:
    """Replies with status 200 that came in the measured part of a stage, per second."""
    count = sum(each.status == 200 and span.settled <= each.end < span.end for each in records)
    return count / (span.end - span.settled)


def _within(records: Sequence[Record], begin: float, end: float) -> list[Record]:
    """The requests that were sent in a time."""
    return [each for each in records if begin <= each.begin < end]


def _percent(part: float, whole: float) -> float:
    return round(100 * part / whole, 2) if whole else 0.0


def _latencies(records: Sequence[Record], seconds: float) -> Figures:
    """Of what was answered: requests per second, and the time that it took."""
    found = [each.ms for each in records if each.outcome == "answered"]
    figures: Figures = {"requests_per_second": round(len(found) / seconds, 2)}
    if found:
        p50, p95, p99 = np.percentile(found, [50, 95, 99])
        figures |= {"median_ms": round(p50), "p95_ms": round(p95), "p99_ms": round(p99)}
    return figures


def _refusals(records: Sequence[Record]) -> Figures:
    """The time that 503 took, if there was one."""
    found = [each.ms for each in records if each.outcome == "refused"]
    if not found:
        return {}
    p50, p99 = np.percentile(found, [50, 99])
    return {
        "refusal_median_ms": round(p50, 1),
        "refusal_p99_ms": round(p99, 1),
        "refusal_slowest_ms": round(max(found), 1),
    }


def _stage(records: Sequence[Record], span: Span) -> Figures:
    """Figures of the measured part of a stage."""
    sent = _within(records, span.settled, span.end)
    seconds = span.end - span.settled
    wanted = {"wanted_per_second": round(span.wanted_per_second, 2)}
    return {
        "seconds": round(span.end - span.begin, 1),
        **(wanted if span.wanted_per_second else {}),
        "sent_per_second": round(len(sent) / seconds, 2),
        "captions_per_second": round(captions_per_second(records, span), 2),
        **_latencies(sent, seconds),
        "refused": sum(each.outcome == "refused" for each in sent),
        **_refusals(sent),
    }


def _by(
    records: Sequence[Record], part: Callable[[Record], str], seconds: float
) -> dict[str, Figures]:
    """Figures of the requests of each kind, or of each client."""
    groups: dict[str, list[Record]] = collections.defaultdict(list)
    for each in records:
        groups[part(each)].append(each)
    return {
        name: {
            "requests": len(found),
            **_latencies(found, seconds),
            "refused": sum(each.outcome == "refused" for each in found),
        }
        for name, found in sorted(groups.items())
    }


def _overload(figures: Figures, spans: Sequence[Span]) -> Figures:
    """Of a stage with a rate: what came of it, beside the peak, which the first stage measures."""
    rated = [span for span in spans if span.wanted_per_second]
    if not rated:
        return {}
    peak = figures["stages"][spans[0].name]["captions_per_second"]
    stage = figures["stages"][rated[0].name]
    return {
        "peak_per_second": peak,
        "captions_percent_of_peak": _percent(stage["captions_per_second"], peak),
        "sent_percent_of_wanted": _percent(stage["sent_per_second"], rated[0].wanted_per_second),
    }


def _fairness(clients: Mapping[str, Figures]) -> Figures:
    """The median of the client that sends least, in percent of the one that sends most."""
    if len(clients) < 2 or not all("median_ms" in each for each in clients.values()):
        return {}
    by_requests = sorted(clients.values(), key=lambda each: int(each["requests"]))
    least, most = by_requests[0]["median_ms"], by_requests[-1]["median_ms"]
    return {"light_client_median_percent": _percent(least, most)}


def _median_growth(records: Sequence[Record], span: Span) -> Figures:
    """How much longer the last quarter of the requests took than the second, in percent.

    The first quarter is left out: the first batches of each size allocate memory.
    """
    found = sorted(each for each in records if each.outcome == "answered")
    quarter = len(found) // 4
    if not quarter:
        return {}
    second = float(np.median([each.ms for each in found[quarter : 2 * quarter]]))
    last = float(np.median([each.ms for each in found[-quarter:]]))
    return {"median_growth_percent": _percent(last - second, second)}


def _recovery(records: Sequence[Record], spans: Sequence[Span]) -> Figures:
    """Seconds from the end of the spike until replies come as before it, and none is refused.

    Missing if that does not happen.
    """
    before, spike, after = spans
    as_before = [
        each.ms for each in _within(records, before.settled, before.end) if each.status == 200
    ]
    if not as_before:
        return {}
    limit = AS_BEFORE * float(np.median(as_before))
    begin = spike.end
    while begin + WINDOW_SECONDS <= after.end:
        found = _within(records, begin, begin + WINDOW_SECONDS)
        captions = [each.ms for each in found if each.status == 200]
        refused = any(each.outcome == "refused" for each in found)
        if captions and not refused and float(np.median(captions)) <= limit:
            return {"recovery_seconds": round(begin - spike.end, 1)}
        begin += 1
    return {}


def _growth(samples: Sequence[Sample], begin: float, end: float) -> Figures:
    """Memory of each process: median of the last quarter, less that of the second, in MB.

    The first quarter is left out: the first full batches allocate memory that the worker keeps.
    """
    quarter = (end - begin) / 4
    figures: Figures = {}
    for name in ("gateway", "worker", "java"):
        second, last = (
            [
                each[f"{name}_mb"]
                for each in samples
                if f"{name}_mb" in each and start <= each["seconds"] < start + quarter
            ]
            for start in (begin + quarter, end - quarter)
        )
        if second and last:
            growth = float(np.median(last)) - float(np.median(second))
            figures[f"{name}_growth_mb"] = round(growth, 1)
    return figures


def _processors(samples: Sequence[Sample], span: Span) -> Figures:
    """Processor time of each process in the last stage, in percent of one core."""
    found = [each for each in samples if span.settled <= each["seconds"] < span.end]
    names = sorted({name for each in found for name in each if name.endswith("_cpu")})
    return {
        f"{name}_percent": round(float(np.mean([each[name] for each in found if name in each])))
        for name in names
    }
