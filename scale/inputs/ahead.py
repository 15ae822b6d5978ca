"""Calls a function for many items in threads, a bounded number ahead of who takes the results."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(
    pool: ThreadPoolExecutor, work: Callable[[Item], Result], items: Iterable[Item], window: int
) -> Iterator[Result]:
    """What `work` returns for each item, in their order.

    Args:
        pool: Runs the calls.
        work: Called for each item.
        items: Taken as they are needed.
        window: Most results that are made and not taken yet.

    Raises:
        Exception: What `work` raised, when its result is taken.
    """
    begun: collections.deque[Future[Result]] = collections.deque()
    for item in items:
        begun.append(pool.submit(work, item))
        if len(begun) >= window:
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()
