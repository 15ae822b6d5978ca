"""Memory and processor time of the processes of a run, every second."""

from __future__ import annotations

import contextlib
import csv
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

INTERVAL_SECONDS = 1.0

#: A moment: `seconds` since 1970, and for each process `NAME_mb` of resident memory and `NAME_cpu`
#: in percent of one core since the moment before.
Sample = Mapping[str, float]


class Sampler:
    """Measures processes in a thread while the `with` block runs.

    Args:
        processes: Name -> its processes, whose figures are added.

    Attributes:
        samples: What was measured; a process that has ended is missing in it.
    """

    def __init__(self, processes: Mapping[str, Sequence[psutil.Process]]) -> None:
        self._processes = dict(processes)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._measure)
        self.samples: list[Sample] = []

    def add(self, name: str, process: psutil.Process) -> None:
        """Measure one more process from now on."""
        self._processes = {**self._processes, name: [process]}

    def __enter__(self) -> Sampler:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._ended.set()
        self._thread.join()

    def _measure(self) -> None:
        while not self._ended.wait(INTERVAL_SECONDS):
            sample = {"seconds": round(time.time(), 2)}
            for name, found in self._processes.items():
                with contextlib.suppress(psutil.NoSuchProcess):
                    memory = sum(each.memory_info().rss for each in found) / 1e6
                    cpu = sum(each.cpu_percent() for each in found)
                    sample |= {f"{name}_mb": round(memory, 1), f"{name}_cpu": round(cpu, 1)}
            self.samples.append(sample)


def write_samples(file: Path, samples: Sequence[Sample]) -> None:
    """Write samples as CSV, with a head."""
    names = list(dict.fromkeys(name for each in samples for name in each))
    with file.open("w", newline="") as out:
        rows = csv.DictWriter(out, names)
        rows.writeheader()
        rows.writerows(samples)
