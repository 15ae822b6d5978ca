"""Work on many items, several at a time, with results in their order and bounded memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Items that are begun, or done and not yet taken, for each job: while one of them takes long, the
#: other jobs go on with those behind it.
AHEAD = 4
#: Seconds after which a wait for a result is interrupted, for Ctrl-C.
WAKE_SECONDS = 0.5


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], jobs: int
) -> Generator[tuple[Item, Result], None, None]:
    """Do `work` on each item in threads.

    Args:
        work: Called in several threads at a time.
        items: Read as results are taken, `AHEAD` x `jobs` before the last one at most.
        jobs: Threads.

    Yields:
        Each item with its result, in their order, each as soon as it may come. If the generator is
        closed early, items that were not begun are left out, and those that were are not waited
        for.
    """
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    pool = ThreadPoolExecutor(jobs)
    try:
        for item in items:
            waiting.append((item, pool.submit(work, item)))
            while waiting and (len(waiting) >= AHEAD * jobs or waiting[0][1].done()):
                first, future = waiting.popleft()
                yield first, _result(future)
        while waiting:
            first, future = waiting.popleft()
            yield first, _result(future)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _result(future: Future[Result]) -> Result:
    """Wait for a result. A signal that comes just before a wait is handled only after it."""
    while not wait([future], timeout=WAKE_SECONDS).done:
        pass
    return future.result()


async def in_order_async(
    work: Callable[[Item], Awaitable[Result]], items: Iterable[Item], jobs: int
) -> AsyncGenerator[tuple[Item, Result], None]:
    """The same in tasks of asyncio. Closed early, it cancels the tasks that were begun."""
    places = asyncio.Semaphore(jobs)

    async def place(item: Item) -> Result:
        async with places:
            return await work(item)

    waiting: deque[tuple[Item, asyncio.Task[Result]]] = deque()
    try:
        for item in items:
            waiting.append((item, asyncio.create_task(place(item))))
            while waiting and (len(waiting) >= AHEAD * jobs or waiting[0][1].done()):
                first, task = waiting[0]
                result = await task
                waiting.popleft()
                yield first, result
        while waiting:
            first, task = waiting[0]
            result = await task
            waiting.popleft()
            yield first, result
    finally:
        for _, task in waiting:
            task.cancel()
        await asyncio.gather(*(task for _, task in waiting), return_exceptions=True)
