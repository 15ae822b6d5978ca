"""An archive with random weights, a server that serves it, and requests, for `benchmarks.serve`.

The server is started as `make serve` starts it, on free ports, in a folder of its own. A closed
loop of requests (`saturated`) keeps a number of them under way, which finds the server's capacity.
An open loop (`arriving`) sends each request when it is due, as independent users do (Poisson
arrivals), and counts its latency from then.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import random
import shutil
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.machine import ROOT, resident
from benchmarks.real_size import random_checkpoint
from client import CaptionClient, CaptionError
from deploy.ports import on_free_ports
from deploy.properties import derived_config
from deploy.torchserve import TorchServe
from handler.caption_settings import cores
from model.export import export_torchscript
from model.options import GenerationOptions
from training.archive import PACKED, archive

#: Captions of a fixed length: the length of random captions must not decide how long they take.
CAPTIONS = GenerationOptions(num_beams=5, max_tokens=20, min_tokens=20)
#: `saturated` takes a rate over at least as many bursts.
BURSTS = 3


def shipped_values() -> dict[str, int]:
    """The values of `handler/model-config.yaml` that decide speed, under its own names.

    `threads` of each worker are shared out from the cores if the file has none.
    """
    config = yaml.safe_load((ROOT / "handler" / "model-config.yaml").read_text())
    values = {name: config[name] for name in ("minWorkers", "batchSize", "maxBatchDelay")}
    threads = max(1, cores() // config["minWorkers"])
    return {**values, "threads": config["handler"].get("threads", threads)}


def make_archive(folder: Path, precision: str, tiny: bool) -> Path:
    """Export and pack a captioner with random weights.

    Args:
        folder: Where archives are kept; one that is newer than the code is used again.
        precision: One of `model.layers.precision.PRECISIONS`.
        tiny: Less than a megabyte, instead of real size.
    """
    out = folder / f"{'tiny' if tiny else 'real'}-{precision}" / "clipcap.mar"
    files = [file for room in PACKED for file in (ROOT / room).rglob("*") if file.is_file()]
    code = [file for file in files if file.suffix != ".pyc"]
    if out.is_file() and out.stat().st_mtime > max(file.stat().st_mtime for file in code):
        return out
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        checkpoint, artifact = Path(temporary, "checkpoint"), Path(temporary, "artifact")
        dataclasses.replace(random_checkpoint(tiny), generation=CAPTIONS).save(checkpoint)
        export_torchscript(checkpoint, artifact, None, precision)
        archive(artifact, out)
    return out


def weights_mb(archive: Path) -> float:
    """Size of the TorchScript file in an archive, in MB."""
    with zipfile.ZipFile(archive) as packed:
        return round(packed.getinfo("captioner.pt").file_size / 1e6, 1)


@contextlib.contextmanager
def serving(archive: Path) -> Iterator[tuple[TorchServe, dict[str, float]]]:
    """A server whose workers are all ready, and the cost of its start; stopped at the end.

    The cost: `ready_seconds` until the last worker is READY, and of the largest worker its memory
    then, `resident_mb`, and its highest until then, `peak_mb`.
    """
    folder = Path(tempfile.mkdtemp(prefix="clipcap-serve-"))
    config = derived_config(folder / "config.properties", on_free_ports())
    server = TorchServe(folder, archive.resolve(), config)
    begin = time.monotonic()
    server.start()
    try:
        cost = {"ready_seconds": round(time.monotonic() - begin, 2)}
        largest = max((resident(worker) for worker in server.workers()), key=lambda r: r["now"])
        yield server, {**cost, "resident_mb": largest["now"], "peak_mb": largest["peak"]}
    finally:
        server.stop()
    shutil.rmtree(folder)  # not after an error, as it holds the server's logs


def saturated(
    address: str, images: Sequence[bytes], clients: int, burst: int, seconds: float
) -> float:
    """Images a second of a server that always has more to do.

    Args:
        address: `http://...` or `grpc://...`.
        images: Sent in turn.
        clients: Requests under way at any time. One batch more than all workers take at once
            keeps every batch full.
        burst: Answers that come at about the same time. The first burst is not counted, and of
            the others only whole ones.
        seconds: How long to go on, but for `BURSTS` at least.

    Raises:
        CaptionError: A request was not answered with a caption.
    """
    order = itertools.cycle(images)
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
            enough.set()  # a client that is done, or has failed, ends the others

    with CaptionClient(address, retries=0) as client, ThreadPoolExecutor(clients) as pool:
        for each in [pool.submit(ask) for _ in range(clients)]:
            each.result()
    in_time = sum(moment <= times[burst - 1] + seconds for moment in times)
    counted = max(BURSTS, in_time // burst - 1) * burst
    return counted / (times[burst + counted - 1] - times[burst - 1])


def one_client(address: str, images: Sequence[bytes], count: int) -> list[float]:
    """Seconds of each request of a client that is alone."""
    spent = []
    with CaptionClient(address, retries=0) as client:
        client.caption(images[0])  # connects
        for _, image in zip(range(count), itertools.cycle(images), strict=False):
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
