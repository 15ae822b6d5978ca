"""Clients of a caption server: always busy, alone, or many that come at random moments.

A closed loop of requests (`saturated`) keeps a number of them under way, which finds the server's
capacity. An open loop (`arriving`) sends each request when it is due, as independent users do
(Poisson arrivals), and counts its latency from then.
"""

from __future__ import annotations

import collections
import itertools
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from client import CaptionClient, CaptionError


def saturated(address: str, images: Sequence[bytes], batch: int, bursts: int) -> float:
    """Images a second of a server that always has more to do.

    Args:
        address: `http://...` or `grpc://...`.
        images: Sent in turn.
        batch: Images that all workers together take at once; their answers come in a burst. Twice
            as many requests are under way, so every batch is full.
        bursts: How many are counted (`burst_rate`).

    Raises:
        CaptionError: A request was not answered with a caption.
    """
    sent = itertools.islice(itertools.cycle(images), (bursts + 3) * batch)

    def ask(image: bytes) -> float:
        client.caption(image)
        return time.perf_counter()

    with CaptionClient(address, retries=0) as client, ThreadPoolExecutor(2 * batch) as pool:
        answered = sorted(pool.map(ask, sent))
    return burst_rate(answered, batch)


def burst_rate(answered: Sequence[float], batch: int) -> float:
    """Answers a second of a server that answers in bursts.

    Args:
        answered: The moments of the answers, in their order; those of at least four batches.
        batch: Answers of a burst. The first is not counted, and nor are the last two, whose batches
            have no requests behind them.
    """
    bursts = len(answered) // batch - 3
    return bursts * batch / (answered[(bursts + 1) * batch - 1] - answered[batch - 1])


def one_client(address: str, images: Sequence[bytes], count: int) -> list[float]:
    """Seconds of each request of a client that is alone."""
    spent = []
    with CaptionClient(address, retries=0) as client:
        client.caption(images[0])  # connects
        for image in itertools.islice(itertools.cycle(images), count):
            begin = time.perf_counter()
            client.caption(image)
            spent.append(time.perf_counter() - begin)
    return spent


def arriving(
    address: str, images: Sequence[bytes], rate: float, seconds: float, seed: int
) -> dict[str, Any]:
    """Send requests at random moments and wait for all answers.

    Args:
        address: `http://...` or `grpc://...`.
        images: Sent in turn.
        rate: Requests a second on average.
        seconds: How long they keep coming.
        seed: Of the moments.

    Returns:
        `sent`, `captioned`, `overloaded` (503), `failed` (any other error; their codes in
        `failures`), `images_per_second` while requests came, and of the captioned ones the median
        `p50_ms` and `p99_ms`.
    """
    rng = random.Random(seed)
    due = list(itertools.accumulate(rng.expovariate(rate) for _ in range(int(rate * seconds))))
    latencies: list[float] = []
    ended: list[float] = []
    refused: collections.Counter[str] = collections.Counter()

    def ask(image: bytes, since: float) -> None:
        try:
            client.caption(image)
        except CaptionError as error:
            refused[error.code] += 1
            return
        ended.append(time.perf_counter())
        latencies.append(ended[-1] - since)

    # More threads than the server lets requests wait, so that none waits here to be sent.
    with CaptionClient(address, retries=0) as client, ThreadPoolExecutor(96) as pool:
        begin = time.perf_counter()
        for moment, image in zip(due, itertools.cycle(images), strict=False):
            time.sleep(max(0.0, begin + moment - time.perf_counter()))
            pool.submit(ask, image, begin + moment)
    overloaded = refused.pop("overloaded", 0)
    during = sum(moment <= begin + due[-1] for moment in ended)
    p50, p99 = (round(1000 * float(np.percentile(latencies, percent)), 1) for percent in (50, 99))
    return {
        "offered_per_second": round(rate, 2),
        "seconds": round(due[-1], 1),
        "sent": len(due),
        "captioned": len(latencies),
        "overloaded": overloaded,
        "failed": refused.total(),
        "failures": dict(refused),
        "images_per_second": round(during / due[-1], 2),
        "p50_ms": p50,
        "p99_ms": p99,
    }
