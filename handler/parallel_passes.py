"""Runs passes through the model in parallel, each with its share of a worker's threads.

Within one pass the threads wait for each other after every operator, and small operators run on one
thread only. Several passes in parallel, each with fewer threads, therefore caption more images a
second. They share one copy of the weights, which several workers would not. Each pass in progress
needs memory of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


class ParallelPasses:
    """A thread pool whose tasks divide the threads of torch among them.

    Args:
        threads: Threads of torch, for all tasks together; also the most tasks at a time.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads)

    def map(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Call `work` for each item, in parallel.

        Args:
            work: Called in a thread of the pool, or in this one if one task gets all threads.
            items: One task each.

        Returns:
            What `work` returned for each item, in the order of the items.

        Raises:
            Exception: What `work` raised for the first item that failed.
        """
        share = self.threads // max(1, min(self.threads, len(items)))

        def with_its_share(item: Item) -> Result:
            torch.set_num_threads(share)  # applies to the calling thread only
            return work(item)

        if share == self.threads:
            return [with_its_share(item) for item in items]
        return list(self._pool.map(with_its_share, items))

    def partition(self, count: int, most: int) -> list[slice]:
        """Divide `count` images into passes of equal size (to within one image).

        Images that fit in one pass are not divided. Otherwise the number of passes is the one for
        which a thread has the least to do, so that no thread is idle while others could share
        their work: 16 images in passes of at most 8 become 6, 5 and 5 on three threads.

        Args:
            count: Number of images.
            most: Most images in one pass.

        Returns:
            The images of each pass, as slices of 0..count.
        """
        needed = max(1, -(-count // most))
        if needed >= self.threads:  # several rounds, each with one pass on every thread
            number = -(-needed // self.threads) * self.threads
        else:

            def images_per_thread(passes: int) -> float:
                return -(-count // passes) / (self.threads // passes)

            number = min(range(needed, self.threads + 1), key=images_per_thread)
        ends = [count * index // number for index in range(number + 1)]
        return [
            slice(begin, end) for begin, end in zip(ends, ends[1:], strict=False) if begin < end
        ]
