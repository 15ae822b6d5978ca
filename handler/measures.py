"""What is counted, for Prometheus; `metrics.yaml` declares each metric for TorchServe.

For TorchServe each value is a line that it reads from the worker's output, so counters are added up
over a batch before they are passed on.
"""

from __future__ import annotations

import collections
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

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
    "clipcap_failed_images_total": tuple(STATUSES),
    "clipcap_errors_total": tuple(STATUSES),
    "clipcap_capture_rows_total": OUTCOMES,
}
#: Gauges, each of which has a label of its own.
GAUGES = ("clipcap_worker_resident_bytes",)
#: Where Linux shows the memory of this process, in pages; the second number is the resident ones.
STATM = Path("/proc/self/statm")


class Emit(Protocol):
    """Takes one value of a metric, in the way of the server."""

    def __call__(self, name: str, value: float, label: str = "") -> None:
        """Record it.

        Args:
            name: A name of `metrics.yaml`.
            value: What to observe, or to count.
            label: The value of the metric's own label, if it has one; that of a gauge, the
                process, is the server's to give.
        """


def start(emit: Emit) -> None:
    """Let every counter begin at 0: a rate needs a value before the first event."""
    for name, labels in COUNTERS.items():
        for label in labels:
            emit(name, 0, label)
    show_memory(emit)


def show_memory(emit: Emit) -> None:
    """Show the memory of this worker; there is no figure where the system is not Linux.

    TorchServe knows it only if it measures the whole machine, for which it starts a process every
    minute (`disable_system_metrics` in config.properties).
    """
    if STATM.exists():
        pages = int(STATM.read_text().split()[1])
        resident = pages * os.sysconf("SC_PAGE_SIZE")
        emit("clipcap_worker_resident_bytes", resident)


def count_captured(emit: Emit, rows: Mapping[str, int]) -> None:
    """Count what has become of captured rows, by outcome."""
    for outcome, number in rows.items():
        emit("clipcap_capture_rows_total", number, outcome)


def count(emit: Emit, results: Sequence[RequestResult]) -> None:
    """Count what became of the requests of a batch and of their images."""
    found: collections.Counter[tuple[str, str]] = collections.Counter()
    for result in results:
        if result.images:
            emit("clipcap_request_images", len(result.images))
        if result.failure is not None:
            found["clipcap_errors_total", result.failure.code] += 1
            continue
        for image in result.images:
            if image.failure is not None:
                found["clipcap_failed_images_total", image.failure.code] += 1
                continue
            if image.ood is not None:
                emit("clipcap_ood_p_value", image.ood.p_value)
            found["clipcap_captions_total", ""] += 1
            for caption in image.captions:
                found["clipcap_tokens_total", ""] += caption.tokens
                found["clipcap_finish_reasons_total", caption.finish_reason] += 1
        if result.images and result.request and result.request.explanation:
            found["clipcap_explanations_total", ""] += 1
    for (name, label), value in found.items():
        emit(name, value, label)
    show_memory(emit)
