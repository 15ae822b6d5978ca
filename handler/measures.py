"""What the handler counts, for Prometheus; `metrics.yaml` declares each metric.

Each value is a line that TorchServe reads from the worker's output, so counters are added up over a
batch before they are written.
"""

from __future__ import annotations

import collections
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ts.context import Context
from ts.metrics.metric_type_enum import MetricTypes

from handler.capture.capturing import OUTCOMES
from handler.replies.failure import STATUSES
from handler.request_result import RequestResult
from model.artifact import FINISH_REASONS

#: Counter -> the values that its own label may have; one without a label has an empty one.
COUNTERS: dict[str, Sequence[str]] = {
    "clipcap_captions_total": ("",),
    "clipcap_explanations_total": ("",),
    "clipcap_tokens_total": ("",),
    "clipcap_finish_reasons_total": FINISH_REASONS,
    "clipcap_capture_rows_total": OUTCOMES,
    "clipcap_failed_images_total": tuple(STATUSES),
    "clipcap_errors_total": tuple(STATUSES),
}
#: Gauges, each of which has a label of its own.
GAUGES = ("clipcap_worker_resident_bytes",)
#: Where Linux shows the memory of this process, in pages; the second number is the resident ones.
STATM = Path("/proc/self/statm")


def emit(context: Context, name: str, value: float, label: str = "") -> None:
    """Record one value of a metric.

    Args:
        context: TorchServe's.
        name: A name of `metrics.yaml`.
        value: What to observe, or to count.
        label: The value of the metric's own label, if it has one.
    """
    kind = MetricTypes.HISTOGRAM
    if name in COUNTERS or name in GAUGES:
        kind = MetricTypes.COUNTER if name in COUNTERS else MetricTypes.GAUGE
    metric = context.metrics.get_metric(name, kind)
    metric.add_or_update(value, [context.model_name, "Model", *([label] if label else [])])


def start(context: Context) -> None:
    """Let every counter begin at 0: a rate needs a value before the first event."""
    for name, labels in COUNTERS.items():
        for label in labels:
            emit(context, name, 0, label)
    show_memory(context)


def show_memory(context: Context) -> None:
    """Show the memory of this worker; there is no figure where the system is not Linux.

    TorchServe knows it only if it measures the whole machine, for which it starts a process every
    minute (`disable_system_metrics` in config.properties).
    """
    if STATM.exists():
        pages = int(STATM.read_text().split()[1])
        resident = pages * os.sysconf("SC_PAGE_SIZE")
        emit(context, "clipcap_worker_resident_bytes", resident, worker_name(sys.argv))


def worker_name(words: Sequence[str]) -> str:
    """The name of a worker, such as `W-9000`; the one that replaces it has the same.

    Args:
        words: The worker's command line, which has the socket that TorchServe reaches it by.
    """
    for option, value in zip(words, words[1:], strict=False):
        if option in ("--sock-name", "--port") and (number := re.search(r"\d+$", value)):
            return f"W-{number[0]}"
    return "W-0"


def count_captured(context: Context, rows: Mapping[str, int]) -> None:
    """Count what has become of captured rows, by outcome."""
    for outcome, number in rows.items():
        emit(context, "clipcap_capture_rows_total", number, outcome)


def count(context: Context, results: Sequence[RequestResult]) -> None:
    """Count what became of the requests of a batch and of their images."""
    found: collections.Counter[tuple[str, str]] = collections.Counter()
    for result in results:
        if result.images:
            emit(context, "clipcap_request_images", len(result.images))
        if result.failure is not None:
            found["clipcap_errors_total", result.failure.code] += 1
            continue
        for image in result.images:
            if image.failure is not None:
                found["clipcap_failed_images_total", image.failure.code] += 1
                continue
            if image.ood is not None:
                emit(context, "clipcap_ood_p_value", image.ood.p_value)
            found["clipcap_captions_total", ""] += 1
            for caption in image.captions:
                found["clipcap_tokens_total", ""] += caption.tokens
                found["clipcap_finish_reasons_total", caption.finish_reason] += 1
        if result.images and result.request and result.request.explanation:
            found["clipcap_explanations_total", ""] += 1
    for (name, label), value in found.items():
        emit(context, name, value, label)
    show_memory(context)
