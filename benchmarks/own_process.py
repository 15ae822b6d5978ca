"""A process for each contestant, as it would have on a server.

In one process the memory, the threads and the caches of ten models get into each other's way, and
the quick ones pay for the slow.
"""

from __future__ import annotations

import gc
import multiprocessing
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch
import transformers

from model.layers.memory import release_free_memory


class OwnProcess:
    """Makes things in a process of its own, and calls functions there.

    Args:
        threads: Of torch.
        makers: Called once, now. They keep what they make (`functools.cache`), and functions that
            are called there get it from them: they are sent by pickle, what they make is not.
    """

    def __init__(self, threads: int, makers: Sequence[Callable[[], Any]]) -> None:
        # A fork of this process would inherit torch's threads. The server that forks has imported
        # everything once, and computed nothing.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["benchmarks.contestants"])
        self._pool = ProcessPoolExecutor(1, context, _begin, (threads, makers))
        self._begun = self._pool.submit(int)

    def wait(self) -> None:
        """Until everything is made.

        Raises:
            BrokenProcessPool: It could not; the process has said why.
        """
        self._begun.result()

    def close(self) -> None:
        """End the process."""
        self._pool.shutdown()

    def timed(self, function: Callable[[], Any]) -> tuple[float, Any]:
        """Seconds that the function took there, and what it gave."""
        return self._pool.submit(_timed, function).result()


@torch.no_grad()
def _begin(threads: int, makers: Sequence[Callable[[], Any]]) -> None:
    warnings.simplefilter("ignore")  # TorchScript's end, quantize_dynamic's end
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(threads)
    for make in makers:
        make()
    gc.collect()
    release_free_memory()  # many processes share the memory


@torch.no_grad()
def _timed(function: Callable[[], Any]) -> tuple[float, Any]:
    since = time.perf_counter()
    given = function()
    return time.perf_counter() - since, given
