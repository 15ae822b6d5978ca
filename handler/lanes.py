"""A worker's cores, shared out among the parts of a batch.

Within one pass through the model threads wait for each other after every operator, and one works
alone wherever an operator is small. Whole passes side by side, each with fewer threads, caption
more pictures a second, and share one copy of the weights as workers of their own would not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


class Lanes:
    """Does things side by side; a single one has all threads.

    Args:
        threads: Threads of torch, of all lanes together.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads)

    def map(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """What `work` gives for each item, in order."""
        share = self.threads // max(1, min(self.threads, len(items)))

        def on_a_lane(item: Item) -> Result:
            torch.set_num_threads(share)  # of the thread that says it
            return work(item)

        if share == self.threads:
            return [on_a_lane(item) for item in items]
        return list(self._pool.map(on_a_lane, items))

    def parts(self, count: int, most: int) -> list[slice]:
        """Cut `count` things into parts of equal size that keep all lanes busy.

        Args:
            count: How many.
            most: In one part at most. If they all fit in one, they are not cut.
        """
        needed = max(1, -(-count // most))
        lanes = min(self.threads, needed)
        number = -(-needed // lanes) * lanes
        ends = [count * place // number for place in range(number + 1)]
        return [slice(a, b) for a, b in zip(ends, ends[1:], strict=False) if a < b]
