"""Requests to a server: as many as it takes, or as many as come.

A *closed* loop keeps a number of requests under way and so finds the server's capacity. An *open*
one sends them when they are due, however slow the answers are (Poisson arrivals, as of many people
who do not know of each other), and counts an answer's latency from when the request was due: what
a person waits for.
"""

from __future__ import annotations

import collections
import itertools
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from client import CaptionClient, CaptionError

#: A rate is taken over so many bursts at least.
BURSTS = 3


def saturated(
    address: str, pictures: Sequence[bytes], clients: int, burst: int, seconds: float
) -> float:
    """Images a second of a server that always has more to do.

    Args:
        address: `http://...` or `grpc://...`.
        pictures: Sent in turn.
        clients: Requests under way at any time: one batch more than all workers take at once
            keeps every batch full.
        burst: Answers that come at about the same time. The first burst is not counted, and of
            the others whole ones only.
        seconds: How long to go on, for `BURSTS` at least.

    Raises:
        CaptionError: A request was not answered with a caption.
    """
    order = itertools.cycle(pictures)
    enough = threading.Event()
    times: list[float] = []

    def ask() -> None:
        try:
            while not enough.is_set():
                client.caption(next(order))
                times.append(time.perf_counter())
                if len(times) > (BURSTS + 1) * burst and times[-1] - times[burst - 1] > seconds:
                    break
        finally:
            enough.set()  # one that is done, or failed, ends the others

    with CaptionClient(address, retries=0) as client, ThreadPoolExecutor(clients) as pool:
        for each in [pool.submit(ask) for _ in range(clients)]:
            each.result()
    intime = sum(moment <= times[burst - 1] + seconds for moment in times)
    counted = max(BURSTS, intime // burst - 1) * burst
    return counted / (times[burst + counted - 1] - times[burst - 1])


def one_client(address: str, pictures: Sequence[bytes], count: int) -> list[float]:
    """Seconds of each request of a client that has the server to itself."""
    spent = []
    with CaptionClient(address, retries=0) as client:
        client.caption(pictures[0])  # connects
        for _, picture in zip(range(count), itertools.cycle(pictures), strict=False):
            begin = time.perf_counter()
            client.caption(picture)
            spent.append(time.perf_counter() - begin)
    return spent


def arriving(
    address: str, pictures: Sequence[bytes], rate: float, seconds: float, seed: int
) -> dict[str, Any]:
    """Send requests at random moments and wait for all the answers.

    Args:
        address: `http://...` or `grpc://...`.
        pictures: Sent in turn.
        rate: Requests a second on average.
        seconds: How long they keep coming.
        seed: Of the moments.

    Returns:
        `sent`, `captioned`, `overloaded` (503), `failed` (anything else; their kinds under
        `failures`), `images_per_second` while requests came, and of the captioned the median
        `p50_ms` and `p99_ms`.
    """
    rng = random.Random(seed)
    due = list(itertools.accumulate(rng.expovariate(rate) for _ in range(int(rate * seconds))))
    latencies: list[float] = []
    ended: list[float] = []
    refused: collections.Counter[str] = collections.Counter()

    def ask(picture: bytes, since: float) -> None:
        try:
            client.caption(picture)
        except CaptionError as error:
            refused[error.code] += 1
            return
        ended.append(time.perf_counter())
        latencies.append(ended[-1] - since)

    # More than the server lets wait, so that no request waits here to be sent.
    with CaptionClient(address, retries=0) as client, ThreadPoolExecutor(96) as pool:
        begin = time.perf_counter()
        for moment, picture in zip(due, itertools.cycle(pictures), strict=False):
            time.sleep(max(0.0, begin + moment - time.perf_counter()))
            pool.submit(ask, picture, begin + moment)
    overloaded = refused.pop("overloaded", 0)
    during = sum(moment <= begin + due[-1] for moment in ended)
    return {
        "offered_per_second": round(rate, 2),
        "seconds": round(due[-1], 1),
        "sent": len(due),
        "captioned": len(latencies),
        "overloaded": overloaded,
        "failed": refused.total(),
        "failures": dict(refused),
        "images_per_second": round(during / due[-1], 2),
        "p50_ms": _ms(latencies, 50),
        "p99_ms": _ms(latencies, 99),
    }


def _ms(seconds: Sequence[float], percent: float) -> float:
    return round(float(np.percentile(seconds, percent)) * 1000, 1)
